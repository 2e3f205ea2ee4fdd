"""The trials of a sweep on its page: a table that sorts and filters, and what went wrong with those that failed."""

from __future__ import annotations

from orchestrator.command_line import command
from orchestrator.page.links import link_to_run, mlflow_base
from orchestrator.page.markup import Cell, Line, Section, paragraph, preformatted, table, text
from orchestrator.reporting.sweep_results import SweepResults
from orchestrator.state.sweep_state import TrialStatus
from orchestrator.storage.layout import trial_file
from trainables.config.automatic import as_chosen
from trainables.config.keys import from_canonical
from trainables.config.lookup import method_label
from trainables.config.trial import TrialConfig
from trainables.records.failure_record import read_failure
from trainables.records.file_names import ERROR
from trainables.wording import counted, shortened

HEADS = (
    "trial",
    "key",
    "state",
    "method",
    "sparsity",
    "warm-up",
    "iterations",
    "seed",
    "val accuracy",
    "test accuracy",
    "epochs",
    "seconds",
)
MOST_FAILURES = 20
LAST_LINES = 6  # of a traceback


def trials_section(results: SweepResults) -> Section:
    base = mlflow_base(results)
    lines = [_line(trial, link_to_run(results, base, trial.mlflow_run_id)) for trial in results.state.trials.values()]
    hint = "The names lead to the runs in MLflow."
    if base.startswith("http://127.0.0.1"):
        hint += f" They open while `{command('ui', results.name)}` runs."
    content = (paragraph(hint, "remark") if base else "") + table(HEADS, lines, "all trials", "trials")
    return Section(id="all-trials", title="Trials", content=content)


def failures_section(results: SweepResults) -> Section:
    """The failed trials with the last lines of their errors; equal errors once."""
    failed = [trial for trial in results.state.trials.values() if trial.state == "failed"]
    by_error: dict[str, list[TrialStatus]] = {}
    for trial in failed:
        by_error.setdefault(trial.error or "", []).append(trial)
    parts = []
    for error, trials in list(by_error.items())[:MOST_FAILURES]:
        more = f" and {counted(len(trials) - 1, 'other trial')}" if len(trials) > 1 else ""
        parts.append(f"<h3>{text(trials[0].name)}{text(more)}</h3>{paragraph(shortened(error, 500))}")
        parts.append(_traceback(results, trials[0]))
    if len(by_error) > MOST_FAILURES:
        parts.append(paragraph(f"and {len(by_error) - MOST_FAILURES} other errors", "remark"))
    parts += [paragraph(f"excluded: {problem}", "remark") for problem in results.damage.values()]
    return Section(id="failures", title="Failed trials", content="".join(parts))


def _line(trial: TrialStatus, link: str) -> Line:
    config = from_canonical(TrialConfig, trial.config)
    chosen = as_chosen(config, trial.metrics)
    dense = config.is_dense
    cells = [
        Cell(text=trial.name, link=link, css_class="text"),
        Cell(text=trial.key, css_class="text"),
        Cell(text="stopped early" if trial.was_stopped_early else trial.state, css_class="text"),
        Cell(text=method_label(config.method), css_class="text"),
        Cell(text="" if dense else f"{config.sparsity!r}"),
        Cell(text="" if dense else str(chosen.warmup_epochs)),
        Cell(text="" if dense else str(chosen.rounds)),
        Cell(text=str(config.seed)),
        *(_number(trial, metric) for metric in ("val/accuracy", "test/accuracy")),
        Cell(text=str(chosen.trained_epochs) if trial.state == "finished" else ""),
        _number(trial, "cost/total_seconds", ".1f"),
    ]
    return Line(cells=cells, css_class="dense" if dense else "")


def _number(trial: TrialStatus, metric: str, form: str = ".4f") -> Cell:
    """The value at the end of a finished trial; those of others cannot be compared with it."""
    value = trial.metrics.get(metric) if trial.state == "finished" else None
    return Cell(text="") if value is None else Cell(text=format(value, form), value=value)


def _traceback(results: SweepResults, trial: TrialStatus) -> str:
    error = read_failure(results.folder.storage.read(trial_file(trial.key, ERROR)))
    lines = error["traceback"].strip().splitlines() if error else []
    return preformatted("\n".join(lines[-LAST_LINES:])) if lines else ""
