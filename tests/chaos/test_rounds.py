"""Real rounds: one on a Ray of its own, whose trials are computed again by themselves; and ten as the command runs them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.chaos.__main__ import main
from tests.chaos.faults.fault import Setting
from tests.chaos.faults.table import FAULTS
from tests.chaos.ground import Ground
from tests.chaos.plan import Moment, RoundPlan
from tests.chaos.round import Round
from tests.chaos.table import line_of

FAULTS_OF_ONE_ROUND = {"kill MLflow writer": 10, "clock of driver jumps": 14, "file cut, driver dead": 26}  # after which event


@pytest.mark.extended
def test_a_round_holds(tmp_path: Path) -> None:
    faults = [(Moment(events=after, seconds=0.1), FAULTS[name]) for name, after in FAULTS_OF_ONE_ROUND.items()]
    setting = Setting(storage="folder", ray="local", tracking="database")
    with Ground(tmp_path) as ground:
        outcome = Round(ground, RoundPlan(seed=0, number=1, setting=setting, faults=faults), tmp_path / "round", None).run()
    assert outcome.problems == [], line_of(outcome)
    assert dict(outcome.injections) == dict.fromkeys(FAULTS_OF_ONE_ROUND, True)
    assert len(outcome.codes) > 1


@pytest.mark.extended
def test_ten_rounds_hold(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "10", "--seed", "0", "--storage", "folder"]) == 0
    output = capfd.readouterr().out
    assert len(re.findall(r"^round +\d+ .*, ok$", output, re.MULTILINE)) == 10
    assert "10 of 10 rounds held" in output
