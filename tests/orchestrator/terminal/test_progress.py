"""The live screen at several sizes, and the lines without a terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from orchestrator.state.sweep_state import Progress, SweepState, TrialStatus, WarmupStatus
from orchestrator.terminal.progress import Screen, _phase
from orchestrator.terminal.tables import LineTable
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


def running_sweep(*, groups: int = 12, slots: int = 40) -> SweepState:
    """Of many groups, a third of them with results, and with long names and a long error."""
    names = [f"drive-exploration-rate-0.25-s0.{90 + index}" for index in range(groups)]
    state = SweepState(sweep="a-sweep-with-a-rather-long-name", groups=names)
    state.recommendations = [
        {
            "group": name,
            "sentence": "",
            "details": [],
            "configuration": "warm up 12 epochs, prune in 100 iterations",
            "objective": "val/accuracy",
            "value": "91.25 %",
            "interval": "90.10 % to 92.40 %",
            "certainty": "needs 3 more seeds",
            "seeds": 2,
        }
        for name in names[groups // 2 : groups // 2 + groups // 3]
    ]
    state.warmups["w"] = WarmupStatus(key="w", name="warmup-r0-abcdef", state="running", epochs=12, position=3)
    for index in range(2 * slots):
        key, running = str(index), index < slots - 1
        state.trials[key] = TrialStatus(
            key=key,
            name=f"drive-w12-i100-s0.9-explore0.25-r{index}",
            state="running" if running else "finished" if index < slots + 9 else "failed" if index == slots + 9 else "waiting",
            config=complete(tiny_config()),
            phase="train" if running else None,
            position=1,
            metrics={"val/accuracy": 0.5},
        )
    error = (
        "drive-w12-i100-s0.9-r1 failed (code): the network must return finite class scores of shape (2, 10) in training mode"
    )
    state.progress = Progress(slots=slots, seconds=4000, seconds_left=(7300, 12000), last_error=error)
    state.tracking_pending, state.tracking_error = 1234, "http://mlflow.example.org:5000 refuses the connection: " + 9 * "no "
    return state


def drawn(state: SweepState, width: int, height: int, **settings: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, **settings)
    screen = Screen(console=console)
    screen.events.extend(["w12-i100-s0.9-r9 finished, val/accuracy 0.9123 " + 30 * "x"] * 3)
    with console.capture() as capture:
        console.print(screen.screen(state))
    return capture.get().splitlines()


def plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 24), (200, 50), (110, 16)])
@pytest.mark.parametrize("groups", [2, 12])
def test_the_screen_fits_into_the_terminal_and_has_every_fact(width: int, height: int, groups: int) -> None:
    lines = [plain(line) for line in drawn(running_sweep(groups=groups), width, height)]
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    text = " ".join(" ".join(lines).split())
    for fact in (
        "10/80 finished, 39 running, 30 waiting, 1 failed",
        "40 of 40 busy",
        "1 h 06 min spent, 0 s of slots; 2 h 02 min to 3 h 20 min left",
        "95 saved by shared warm-ups",  # 2 for each of 49 trials, less 3
        "1,234 events waiting: http://mlflow",
        "failed (code): the netwo",
        "warm-up 3/12",
    ):
        assert fact in text
    assert re.search(r"and \d+ more", text)
    assert ("91.25 %" in text) == (groups == 12)
    assert ("90.10 % to 92.40 %" in text) == (width >= 110 and groups == 12)


def test_groups_with_results_come_first_where_not_all_fit() -> None:
    text = "\n".join(map(plain, drawn(running_sweep(groups=12), 80, 24)))
    assert "91.25 %" in text
    assert re.search(r"and \d+ more", text)


def test_without_colour_there_are_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    colours = re.compile(r"\x1b\[[0-9;]*(?:3[0-8]|9[0-7]|4[0-8])[0-9;]*m")
    assert not any(colours.search(line) for line in drawn(running_sweep(), 80, 24))
    monkeypatch.delenv("NO_COLOR")
    assert any(colours.search(line) for line in drawn(running_sweep(), 80, 24, color_system="standard"))


def test_without_a_terminal_finished_stages_within_seconds_share_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now, console = [100.0], Console(file=io.StringIO(), width=80)
    monkeypatch.setattr("orchestrator.terminal.progress.time.monotonic", lambda: now[0])
    state = running_sweep()
    with Screen(console=console) as screen:
        for name in "abcdefgh":
            now[0] += 3
            screen.print_finish(f"{name} finished", state)
            screen.draw(state)
        screen.print_event("i failed (code): boom")
        for seconds in (6, 30, 31):
            now[0] += seconds
            screen.draw(state)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    summary = "10/80 finished, 39 running, 30 waiting, 1 failed, 1 warming up; 2 h 02 min to 3 h 20 min left"
    assert lines == [
        f"d finished (and 3 others); {summary}",
        f"h finished (and 3 others); {summary}",
        "i failed (code): boom",
        summary,
    ]


def test_columns_of_numbers_are_never_cut() -> None:
    console = Console(file=io.StringIO(), width=30)
    table = LineTable("name", "value", "interval", kept=("value", "interval"))
    table.add_line("a-name", "0.9123456", "0.90 to 0.92")
    with console.capture() as capture:
        console.print(table)
    assert "0.9123456  0.90 to 0.92" in capture.get()
    assert "a-…" in capture.get()
