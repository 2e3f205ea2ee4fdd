"""The live screen of a running sweep on stderr; a line for each event where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from collections import deque

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from orchestrator.prose import PlainConsole
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.terminal.overview import fact_table, facts, group_table, left_text, search_lines, summary_line
from orchestrator.terminal.tables import LineTable, one_line
from trainables.config.metric_names import CHOSEN_ITERATIONS
from trainables.runtime.secrets import without_secrets
from trainables.wording import counted

DRAW_INTERVAL_S = 0.5
FINISH_INTERVAL_S = 10.0  # between lines on finished stages; those between are counted
SUMMARY_INTERVAL_S = 60.0  # without any other line
MAX_EVENTS = 3
LOW = 20  # lines below which one event is shown
BAR_WIDTH = 20
NARROW = 80  # columns below which there is no bar


class Screen:
    """Draws the state of a sweep, and prints messages above it."""

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or PlainConsole(stderr=True, quiet=quiet)
        self.live: Live | None = None
        self.last_drawn = 0.0
        self.last_line = self.last_finish = time.monotonic()
        self.unshown: list[str] = []  # lines on finished stages that wait to be shown as one
        self.width = self.console.width
        self.events: deque[str] = deque(maxlen=MAX_EVENTS)

    def __enter__(self) -> Screen:
        if self.console.is_terminal and not self.console.is_dumb_terminal and not self.console.quiet:
            self._start_live()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        sys.stderr.flush()

    def _start_live(self) -> None:
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.live.start()

    def print(self, line: str) -> None:
        """A line that stays on the screen."""
        self.last_line = time.monotonic()
        (self.live.console if self.live else self.console).print(
            without_secrets(line), highlight=False, markup=False, soft_wrap=True
        )

    def print_event(self, line: str) -> None:
        """Shows an event of one stage: among the newest few on the live screen, else as a line."""
        self.events.append(line)
        if self.live is None:
            self.print(line)

    def print_finish(self, line: str, state: SweepState) -> None:
        """The same for the normal end of a stage; where many end within seconds, a line stands for several."""
        self.events.append(line)
        if self.live is not None:
            return
        self.unshown.append(line)
        if time.monotonic() - self.last_finish >= FINISH_INTERVAL_S:
            self._print_summary(state)

    def draw(self, state: SweepState) -> None:
        """Shows the state, at most twice a second; without a terminal a summary if nothing was said for a while."""
        now = time.monotonic()
        if self.live is None:
            due = self.unshown and now - self.last_finish >= FINISH_INTERVAL_S
            if due or now - self.last_line >= SUMMARY_INTERVAL_S:
                self._print_summary(state)
        elif now - self.last_drawn >= DRAW_INTERVAL_S:
            self.last_drawn = now
            self._follow_width()
            self.live.update(self.screen(state), refresh=True)

    def _print_summary(self, state: SweepState) -> None:
        """A line on the newest finished stage, if there is one, and on the sweep."""
        head = ""
        if self.unshown:
            others = counted(len(self.unshown) - 1, "other")
            head = f"{self.unshown[-1]}{f' (and {others})' if len(self.unshown) > 1 else ''}; "
        self.last_finish, self.unshown = time.monotonic(), []
        self.print(f"{head}{summary_line(state)}; {left_text(state)}")

    def _follow_width(self) -> None:
        """Begins on an empty screen after a change of width: a terminal wraps the old lines, so they cannot be erased."""
        assert self.live is not None
        if self.console.width != self.width:
            self.width = self.console.width
            self.live.stop()
            self.console.clear()
            self._start_live()

    def screen(self, state: SweepState) -> Group:
        """Everything at once, as high as the terminal at most."""
        width, height = self.console.size
        head = Table.grid(padding=(0, 1))
        name = one_line(state.sweep, "bold")
        if width >= NARROW:
            bar = ProgressBar(total=_total(state), completed=state.counts()["finished"], width=BAR_WIDTH)
            head.add_row(name, bar, summary_line(state))
        else:
            head.add_row(name, summary_line(state))
        parts: list[RenderableType] = [head, fact_table(facts(state, running=True))]
        events = list(self.events)[-1 if height < LOW else -MAX_EVENTS :]
        above = len(self.console.render_lines(Group(*parts), pad=False))
        rest = height - above - len(events) - 2  # without the heads of the two tables
        if (groups := group_table(state, width, max(2, rest // 2))) is not None:
            parts.append(groups)
            rest -= groups.row_count
        searches = search_lines(state)[: max(0, rest // 2)]
        parts += [one_line(line, "green") for line in searches]
        running = _running_table(state, max(2, rest - len(searches)))
        if running.row_count:
            parts.append(running)
        parts += [one_line(event, "dim") for event in events]
        return Group(*parts)


def _running_table(state: SweepState, most: int) -> Table:
    """The stages that run; where not all of them fit, the last row names the number of the others."""
    rows = [(one.name, f"warm-up {one.position}/{one.epochs}", "") for one in state.warmups.values() if one.state == "running"]
    rows += [(one.name, _phase(one), _accuracy(one, "val/accuracy")) for one in state.trials.values() if one.state == "running"]
    table = LineTable("running", "phase", "val/accuracy", kept=("phase", "val/accuracy"))
    shown = rows if len(rows) <= most else rows[: most - 1]
    for row in shown:
        table.add_line(*row)
    if len(shown) < len(rows):
        table.add_line(f"and {len(rows) - len(shown)} more", style="dim")
    return table


def _total(state: SweepState) -> int | None:
    """The trials of the sweep; None, which draws a bar without an end, while a search may add some."""
    return max(len(state.trials), 1) if state.settled else None


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
    metrics, epochs = trial.metrics, trial.sparse_epochs
    if trial.phase == "prune":
        return f"pruning {trial.position}/{int(metrics.get(CHOSEN_ITERATIONS, trial.config['prune_iterations']))}"
    if trial.phase == "level":
        return f"level {trial.position // epochs + 1}"
    if trial.phase == "train":
        return f"training {trial.position}/{epochs}"
    return "warm-up" if trial.phase == "warmup" else "starting"


def _accuracy(trial: TrialStatus, key: str) -> str:
    return f"{trial.metrics[key]:.4f}" if key in trial.metrics else ""
