"""How long what is left of a plan will take: by finished trials of the same networks and data, else by a measurement."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.planning.durations import WARMUP, Pace, Paces, Timed, Work, network_of, timed_trial, trial_work
from orchestrator.planning.plan import Plan
from orchestrator.planning.written_bytes import model_kind
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from trainables.config.automatic import as_chosen
from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig

MAX_RESULTS = 20  # of each network and method
MAX_READ = 500  # results of the storage besides those of the plan
BATCH = 50
COURSES = 40
LEFT_OUT = 0.05  # of the courses, at each end of the range


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the unfinished trials will cost; figures are None where they are not known.

    Attributes:
        hours: of one slot, without the start of trials.
        hours_range: in which nine of ten possible courses lie.
        seconds_per_epoch: of all epochs and rounds together.
        records: finished trials that it follows from; 0 if from a measurement.
        devices: that they ran on.
        unknown: networks of which there is neither a record nor a measurement.
    """

    hours: float | None
    hours_range: tuple[float, float] | None = None
    seconds_per_epoch: float | None = None
    records: int = 0
    devices: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Records:
    """Finished trials with the networks and data of a plan.

    Attributes:
        workers: of each trial of the plan; the times of trials of other numbers of workers say nothing about them.
        timed: as many as `MAX_RESULTS` of each network and method.
        model_bytes: kind of model -> bytes of each.
    """

    workers: int = 1
    timed: list[Timed] = field(default_factory=list)
    model_bytes: dict[tuple[Any, ...], list[int]] = field(default_factory=dict)
    devices: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, result: Mapping[str, Any]) -> None:
        try:
            config = from_canonical(TrialConfig, result["config"])
        except TypeError:  # of a method or with a setting that this version does not have
            return
        kind = (network_of(config), config.method)
        if kind not in self.counts or self.counts[kind] >= MAX_RESULTS:
            return
        self.model_bytes.setdefault(model_kind(config), []).append(result["model_bytes"])
        if ({one.get("workers", 1) for one in result.get("fingerprints", ())} or {1}) != {self.workers}:
            return
        if timed := timed_trial(as_chosen(config, result["metrics"]), result["metrics"], trains_warmup=True):
            self.timed.append(timed)
            self.counts[kind] += 1
            self.devices[result.get("device") or "an unknown device"] += 1

    @property
    def mean_model_bytes(self) -> dict[tuple[Any, ...], float]:
        return {kind: statistics.fmean(sizes) for kind, sizes in self.model_bytes.items()}


def read_records(plan: Plan, storage: Storage) -> Records:
    """The plan's own finished trials first, then others of the storage, until each network and method has enough."""
    records = Records(workers=plan.spec.resources.workers)
    for trial in plan.trials:
        records.counts[network_of(trial.config), trial.config.method] = 0
    for trial in plan.trials:
        if trial.result is not None:
            records.add(trial.result)
    own = {trial.key for trial in plan.trials}
    others = [key for key in storage.names("trials") if key not in own][:MAX_READ] if not _has_enough(records) else []
    while others and not _has_enough(records):
        batch, others = others[:BATCH], others[BATCH:]
        for result in read_results(storage, batch)[0].values():
            records.add(result)
    return records


def _has_enough(records: Records) -> bool:
    return all(count >= MAX_RESULTS for count in records.counts.values())


def estimate(plan: Plan, records: Records, measured: Sequence[Timed] = ()) -> Estimate:
    """The cost of the unfinished trials.

    Args:
        measured: of networks, which then count instead of records.
    """
    works = list(_works(plan))
    paces, networks = Paces.of(measured or records.timed), dict.fromkeys(work.network for work in works)
    expected = [paces[work.network].expected(work) if paces[work.network].stages else None for work in works]
    if unknown := dict.fromkeys(work.network for work, seconds in zip(works, expected, strict=True) if seconds is None):
        names = {network_of(trial.config): trial.config.model for trial in plan.trials}
        return Estimate(hours=None, unknown=tuple(dict.fromkeys(names[network] for network in unknown)))
    known = [(work, seconds) for work, seconds in zip(works, expected, strict=True) if seconds is not None]
    total, epochs = sum(seconds for _, seconds in known), sum(work.epochs for work in works)
    spread = None if measured else _range(known, {network: paces[network] for network in networks})
    return Estimate(
        hours=total / 3600,
        hours_range=spread,
        seconds_per_epoch=total / epochs if epochs else None,
        records=0 if measured else len(records.timed),
        devices=() if measured else tuple(name for name, _ in records.devices.most_common()),
    )


def _works(plan: Plan) -> Iterable[Work]:
    """What is left to do, each shared warm-up once."""
    shares = plan.spec.share_warmups
    for trial in plan.unfinished:
        yield trial_work(trial.config, trains_warmup=not shares)
    for warmup in plan.warmups(unfinished_only=True) if shares else ():
        yield Work(network=network_of(warmup.config), method=WARMUP, epochs=warmup.lengths[-1])


def _range(works: Sequence[tuple[Work, float]], paces: Mapping[str, Pace]) -> tuple[float, float] | None:
    """Hours between which nine of ten possible courses lie; None if there are too few records."""
    if not works or not all(pace.is_known for pace in paces.values()):
        return None
    draw, totals = random.Random(0), []
    for _ in range(COURSES):
        ratios = {network: pace.draw_ratios(draw) for network, pace in paces.items()}
        totals.append(sum(seconds * ratios[work.network](work.method) for work, seconds in works) / 3600)
    totals.sort()
    out = int(LEFT_OUT * COURSES)
    return totals[out], totals[-1 - out]
