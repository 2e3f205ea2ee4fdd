"""Shared warm-ups are paid for once."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.search.warmups import WarmupLedger
from orchestrator.spec.grid import base_config
from tests.support.synthetic_grid import EPOCHS, spec_with
from trainables.config.keys import warmup_key
from trainables.config.trial import TrialConfig

SPEC = spec_with()
BASE = base_config(SPEC, "drive")


def config(epochs: int, seed: int = 0, rewind: str = "none") -> TrialConfig:
    return replace(BASE, warmup_epochs=epochs, seed=seed, rewind=rewind)


def ledger(*, shared: bool = True) -> WarmupLedger:
    return WarmupLedger(key_of=lambda one: warmup_key(one, "none"), shared=shared)


def test_trial_pays_for_the_epochs_that_no_warmup_of_its_key_has() -> None:
    warmups = ledger()
    assert warmups.missing(config(3)) == 3
    assert warmups.cost(config(3)) == 3 + EPOCHS
    warmups.add(config(3))
    assert [warmups.missing(config(epochs)) for epochs in (0, 2, 3, 5)] == [0, 0, 0, 2]
    assert warmups.missing(config(3, seed=1)) == 3
    warmups.add(config(1))
    assert warmups.missing(config(3)) == 0  # a shorter one takes nothing away


def test_trial_without_warmup_pays_for_none_and_adds_none() -> None:
    warmups = ledger()
    warmups.add(config(0))
    assert (warmups.missing(config(0)), dict(warmups.longest)) == (0, {})


def test_warmups_that_are_not_shared_are_paid_for_each_time() -> None:
    warmups = ledger(shared=False)
    warmups.add(config(3))
    assert warmups.missing(config(3)) == 3
    assert not warmups.longest


def test_snapshots_of_before_are_known() -> None:
    warmups = ledger()
    warmups.longest[warmup_key(config(2), "none")] = 2
    assert warmups.cost(config(5)) == 3 + EPOCHS


def test_cost_of_levels_has_the_epochs_of_every_level() -> None:
    levels = replace(base_config(spec_with({"method": ["imp"]}), "imp"), sparsity=0.9, warmup_epochs=2)
    assert ledger().cost(levels) == 2 + 11 * EPOCHS + EPOCHS  # 0.8 ** 11 < 0.1 < 0.8 ** 10
