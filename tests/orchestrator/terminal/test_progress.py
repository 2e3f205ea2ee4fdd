"""What the live screen says of a running trial."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.state.sweep_state import TrialStatus
from orchestrator.terminal.progress import _phase
from tests.support.trials import tiny_config, tiny_training
from trainables.config.keys import complete


@pytest.mark.parametrize(
    ("budget", "phase", "position", "message"),
    [
        ("sparse", "level", 5, "level 1"),
        ("sparse", "level", 6, "level 2"),
        ("total", "level", 3, "level 1"),  # 6 epochs less a warm-up of 2
        ("total", "level", 4, "level 2"),
        ("sparse", "train", 3, "training 3/6"),
        ("total", "train", 3, "training 3/4"),
        ("sparse", "prune", 1, "pruning 1/2"),
        ("sparse", "warmup", 1, "warm-up"),
        ("sparse", "", 0, "starting"),
    ],
)
def test_phase_of_a_trial_follows_from_its_remaining_work(budget: Any, phase: str, position: int, message: str) -> None:
    config = tiny_config(method="imp" if phase == "level" else "drive", training=tiny_training(epochs=6, budget=budget))
    trial = TrialStatus(key="k", name="n", state="running", config=complete(config), phase=phase, position=position)
    assert _phase(trial) == message
