"""The sweep without faults: what every round is compared with."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.faults.fault import Setting
from tests.chaos.ground import Ground
from tests.chaos.plan import RoundPlan
from tests.chaos.round import Round
from tests.chaos.sweep import Undisturbed
from tests.support.cli import points_in
from tests.support.searched_sweep import timeless


def run_undisturbed(ground: Ground, folder: Path) -> Undisturbed:
    """Runs it on the cluster, in a folder of its own.

    Raises:
        AssertionError: it did not end as it should.
    """
    setting = Setting(storage="folder", ray="joined", tracking="database")
    round_ = Round(ground, RoundPlan(seed=0, number=0, setting=setting, faults=[]), folder, None)
    outcome = round_.run()
    assert not outcome.problems, f"the sweep without faults fails: {outcome.problems}"
    trials, records = round_.final_status["trials"], round_.records
    return Undisturbed(
        seconds=outcome.driver_seconds,
        events=round_.events.read_bytes().count(b"\n"),
        decisions=timeless(records.read(f"sweeps/{round_.name}/decisions.jsonl").decode()),
        digests={trial["key"]: trial["model_sha256"] for trial in trials if trial["state"] == "finished"},
        data={name: records.read(name) for name in records.names() if name.startswith("data/")},
        points={trial["key"]: points_in(records.read(f"trials/{trial['key']}/metrics.jsonl").decode()) for trial in trials},
    )
