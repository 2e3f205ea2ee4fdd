"""A check of a round finds what it is to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.storage.factory import open_storage
from tests.chaos.checks import files
from tests.chaos.faults.fault import Setting, certain
from tests.chaos.faults.table import FAULTS
from tests.chaos.ground import Ground
from tests.chaos.plan import Moment, RoundPlan
from tests.chaos.round import Round


@pytest.mark.parametrize(("fault", "found"), [("kill driver", 0), ("stop and wake driver", 1)])
def test_half_written_files_are_left_by_killed_processes_alone(tmp_path: Path, fault: str, found: int) -> None:
    setting = Setting(storage="folder", ray="local", tracking="database")
    plan = RoundPlan(seed=0, number=1, setting=setting, faults=[(Moment(events=1, seconds=0), FAULTS[fault])])
    with Ground(tmp_path) as ground:
        round_ = Round(ground, plan, tmp_path / "round", None)
        round_.folder.mkdir()
        open_storage(round_.storage, create=True)
        sweep = Path(round_.storage, "sweeps", "s")
        sweep.mkdir(parents=True)
        assert list(files(round_)) == []
        (sweep / ".stop-0123456789abcdef.12-34.partial").touch()
        (one,) = round_.injections
        one.hit, one.has_hit = certain, True
        assert len(list(files(round_))) == found
