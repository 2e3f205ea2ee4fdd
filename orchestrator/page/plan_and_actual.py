"""What was planned, and what was done so far."""

from __future__ import annotations

from orchestrator.page.markup import Cell, Line, Section, table
from orchestrator.reporting.sweep_results import SweepResults
from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig

HEADS = ("", "planned", "so far")


def plan_section(results: SweepResults) -> Section:
    """A search plans as it goes: its trials are those that it has begun, and the full grid stands beside them."""
    state, trials = results.state, list(results.state.trials.values())
    counts = state.counts()
    ended = [trial for trial in trials if trial.state == "finished"]
    own = sum(trial.warmup_epochs for trial in trials)
    shared = sum(warmup.epochs for warmup in state.warmups.values())
    trained = sum(warmup.trained_epochs for warmup in state.warmups.values())
    configs = {trial.key: from_canonical(TrialConfig, trial.config) for trial in trials}
    sparse = sum(config.level_epochs + config.sparse_epochs for config in configs.values())
    done = sum(configs[trial.key].level_epochs + configs[trial.key].sparse_epochs for trial in ended)
    done += sum(trial.rung or 0 for trial in trials if trial.was_stopped_early)
    rows = [
        ("trials", f"{len(trials):,}", f"{counts['finished']:,} finished, {counts['failed']:,} failed"),
        ("epochs after the warm-ups", f"{sparse:,}", f"{done:,}"),
    ]
    if state.warmups:
        rows += [
            ("warm-up epochs, if each trial trained its own", f"{own:,}", ""),
            ("warm-up epochs, shared", f"{shared:,}", f"{trained:,}"),
        ]
    if results.overview is not None and results.overview.grid_epochs:
        rows.append(
            ("epochs of the full grid, and of the search", f"{results.overview.grid_epochs:,}", f"{results.overview.epochs:,}")
        )
    lines = [Line(cells=[Cell(text=row[0], css_class="text wrap"), *(Cell(text=cell) for cell in row[1:])]) for row in rows]
    return Section(id="plan", title="Plan and what was done", content=table(HEADS, lines, "plan and what was done"))
