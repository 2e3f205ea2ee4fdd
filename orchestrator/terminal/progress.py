"""The live screen of a running sweep on stderr; plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from collections import deque

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.terminal.tables import duration, plain_table
from trainables.config.metric_names import CHOSEN_ITERATIONS, CHOSEN_WARMUP

DRAW_INTERVAL_S = 0.5
LINE_INTERVAL_S = 10.0
MAX_EVENTS = 3


class Screen:
    """Draws the state of a sweep, and prints messages above it."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.live: Live | None = None
        self.first_finished: int | None = None  # trials that were finished before this run
        self.paced_since: tuple[float, int] | None = None
        self.last_drawn = 0.0
        self.last_line = time.monotonic()
        self.events: deque[str] = deque(maxlen=MAX_EVENTS)

    def __enter__(self) -> Screen:
        if self.console.is_terminal and not self.console.quiet:
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        sys.stderr.flush()

    def print(self, line: str) -> None:
        """A line that stays on the screen."""
        (self.live.console if self.live else self.console).print(line, highlight=False, markup=False, soft_wrap=True)

    def print_event(self, line: str) -> None:
        """Shows an event of one stage: the newest few on the live screen, else a line for each that is no normal end."""
        self.events.append(line)
        if self.live is None and not line.endswith(" finished"):
            self.print(line)

    def draw(self, state: SweepState) -> None:
        """Shows the state, at most twice a second; without a terminal a summary every ten seconds."""
        now = time.monotonic()
        if self.first_finished is None:
            self.first_finished = state.counts()["finished"]
        if self.live is not None and now - self.last_drawn >= DRAW_INTERVAL_S:
            self.last_drawn = now
            self.live.update(self._screen(state), refresh=True)
        elif self.live is None and now - self.last_line >= LINE_INTERVAL_S:
            self.last_line = now
            self.print(summary_line(state) + self._time_left(state))

    def _screen(self, state: SweepState) -> Group:
        counts = state.counts()
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(state.sweep, style="bold"),
            ProgressBar(total=_total(state), completed=counts["finished"], width=30),
            summary_line(state) + self._time_left(state),
        )
        parts: list[object] = [head]
        running = plain_table("running", "phase", "val/accuracy")
        for warmup in state.warmups.values():
            if warmup.state == "running":
                running.add_row(warmup.name, f"warm-up {warmup.position}/{warmup.epochs}", "")
        for trial in state.trials.values():
            if trial.state == "running":
                running.add_row(trial.name, _phase(trial), _accuracy(trial, "val/accuracy"))
        if running.row_count:
            parts.append(running)
        parts += [Text(line, style="green", overflow="ellipsis", no_wrap=True) for line in search_lines(state)]
        best = best_trial(state)
        if best is not None:
            parts.append(Text(f"best so far: {best.name}, val/accuracy {_accuracy(best, 'val/accuracy')}", style="green"))
        if state.tracking_error:
            parts.append(Text(f"MLflow: {state.tracking_pending} events wait ({state.tracking_error})", style="yellow"))
        parts += [Text(event, style="dim", overflow="ellipsis", no_wrap=True) for event in self.events]
        return Group(*parts)  # type: ignore[arg-type]

    def _time_left(self, state: SweepState) -> str:
        """Estimated time left, by the pace since the first trial of this run finished, so that start-up does not count."""
        if not state.settled:
            return ""
        counts = state.counts()
        finished = counts["finished"]
        done = finished - (self.first_finished or 0)
        if done == 0:
            return ""
        self.paced_since = self.paced_since or (time.monotonic(), done)
        since, before = self.paced_since
        if done - before < 3:
            return ""
        seconds = (time.monotonic() - since) / (done - before) * (counts["waiting"] + counts["running"])
        return f", about {duration(seconds)} left" if seconds >= 1 else ""


def summary_line(state: SweepState) -> str:
    """How many trials are in which state; of a search without a total, which only its end shows."""
    counts = state.counts() | {"stopped early": state.stopped_early}
    counts["stopped"] -= state.stopped_early
    total = "" if state.search else f"/{len(state.trials)}"
    parts = [f"{counts['finished']}{total} finished"]
    parts += [f"{counts[name]} {name}" for name in ("stopped early", "running", "failed", "stopped") if counts[name]]
    warming_up = sum(warmup.state == "running" for warmup in state.warmups.values())
    if warming_up:
        parts.append(f"{warming_up} warming up")
    return ", ".join(parts)


def _total(state: SweepState) -> int | None:
    """The trials of the sweep; None, which draws a bar without an end, while a search may add some."""
    return max(len(state.trials), 1) if state.settled else None


def search_lines(state: SweepState) -> list[str]:
    """What the search of each group is doing, or has found."""
    return [f"{group}: {doing}" for group, doing in state.search.items()]


def best_trial(state: SweepState) -> TrialStatus | None:
    """The finished pruned trial with the highest validation accuracy at the sweep's highest sparsity.

    None of a search, which compares configurations over their seeds.
    """
    if state.search:
        return None
    finished = [trial for trial in state.trials.values() if trial.state == "finished" and trial.config["sparsity"] > 0]
    finished = [trial for trial in finished if "val/accuracy" in trial.metrics]
    if not finished:
        return None
    return max(finished, key=lambda trial: (trial.config["sparsity"], trial.metrics["val/accuracy"]))


def _phase(trial: TrialStatus) -> str:
    training, metrics = trial.config["training"], trial.metrics
    warmup = int(metrics.get(CHOSEN_WARMUP, trial.config["warmup_epochs"]))
    epochs = training["epochs"] - (warmup if training["budget"] == "total" else 0)
    if trial.phase == "prune":
        return f"pruning {trial.position}/{int(metrics.get(CHOSEN_ITERATIONS, trial.config['prune_iterations']))}"
    if trial.phase == "level":
        return f"level {trial.position // epochs + 1}"
    if trial.phase == "train":
        return f"training {trial.position}/{epochs}"
    return "warm-up" if trial.phase == "warmup" else "starting"


def _accuracy(trial: TrialStatus, key: str) -> str:
    return f"{trial.metrics[key]:.4f}" if key in trial.metrics else ""
