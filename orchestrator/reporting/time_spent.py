"""Where the slot hours of a sweep went, and what sharing warm-ups saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.reporting.sweep_results import SweepResults


@dataclass(frozen=True, kw_only=True)
class TimeSpent:
    """Seconds of slots, over the finished trials that this sweep has computed itself.

    Attributes:
        warmup: that warm-ups were trained, each shared one once.
        saved: that they would have taken besides, if each trial had trained its own.
        training: of the sparse networks; the levels of IMP count as pruning.
        overhead: that their stages held a slot for something else: start, data, checkpoints; None where it is not known.
        other: that unfinished trials have held a slot.
        idle: that slots had nothing to do while a driver ran; None where it is not known.
        reused: finished trials that an earlier sweep has computed, which cost nothing here.
    """

    warmup: float
    saved: float
    pruning: float
    training: float
    overhead: float | None
    other: float
    idle: float | None
    reused: int


def time_spent(results: SweepResults) -> TimeSpent:
    state = results.state
    computed = {key: record for key, record in results.records.items() if _held(results, key)}
    warmups = {key: record["metrics"].get("cost/warmup_seconds", 0.0) for key, record in computed.items()}
    shared: dict[str, float] = {}  # warm-up -> seconds of its longest use
    alone = 0.0
    for key, seconds in warmups.items():
        warmup = computed[key].get("warmup_key")
        if warmup in state.warmups:
            shared[warmup] = max(shared.get(warmup, 0.0), seconds)
        else:
            alone += seconds
    trained = alone + sum(shared.values())
    pruning = _total(computed, "cost/prune_seconds")
    training = _total(computed, "cost/total_seconds") - pruning - sum(warmups.values())
    held = sum(state.trials[key].seconds for key in computed) + sum(state.warmups[key].seconds for key in shared)
    whole = sum(stage.seconds for stage in state.all_stages())
    slots, seconds = state.progress.slots, state.progress.seconds
    running = any(stage.state == "running" for stage in state.all_stages())
    return TimeSpent(
        warmup=trained,
        saved=max(0.0, sum(warmups.values()) - trained),
        pruning=pruning,
        training=training,
        overhead=max(0.0, held - trained - pruning - training) if held else None,
        other=max(0.0, whole - held),
        idle=max(0.0, slots * seconds - whole) if slots and seconds and not running else None,
        reused=len(results.records) - len(computed),
    )


def _held(results: SweepResults, key: str) -> bool:
    """Whether the trial has held a slot in this sweep; records of earlier versions do not say it, so their sweep decides."""
    return results.state.trials[key].seconds > 0 or results.records[key].get("sweep") == results.name


def _total(records: Mapping[str, Mapping[str, Any]], name: str) -> float:
    return float(sum(record["metrics"].get(name, 0.0) for record in records.values()))
