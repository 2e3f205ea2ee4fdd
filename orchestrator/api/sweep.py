"""`orchestrator.load`: the results of a sweep in Python. Each call reads the records, so a running sweep can be watched."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Literal

from orchestrator.api.chart import Chart
from orchestrator.api.tables import curve_table, trial_table
from orchestrator.command_line import DEFAULT_STORAGE, note_sweep
from orchestrator.errors import UserError
from orchestrator.recommendation.recommendation import Recommendation
from orchestrator.recommendation.sentences import details, sentence
from orchestrator.reporting.sweep_results import SweepResults, sweep_results
from orchestrator.state.sweep_folder import SweepFolder, open_sweep
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.storage.factory import open_storage

if TYPE_CHECKING:
    from pandas import DataFrame

    from trainables.export.sparse_model import SparseModel


def load(name: str, *, storage: str = DEFAULT_STORAGE) -> Sweep:
    """The sweep of that name in a storage: a folder, or a URI such as s3://bucket/sweeps.

    Raises:
        SweepError: there is none, or the storage cannot be reached.
    """
    return Sweep(open_sweep(open_storage(storage), name))


class Sweep:
    """The results of one sweep; a notebook shows what is recommended."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        return self._folder.name

    @property
    def storage(self) -> str:
        """The folder or the URI of its storage."""
        return self._folder.storage.root

    def trials(self) -> DataFrame:
        """A row for each trial, in the order of the sweep; NaN or None where something is not known.

        Columns: key, name, state, error; method, warmup_epochs, prune_iterations, sparsity, seed, and every other key of the
        sweep file that differs between trials; val_accuracy, test_accuracy, flops (multiply-adds of the kept weights), speedup
        (dense multiply-adds over these), bytes (of the model's file), seconds, epochs (the cost, in epochs of dense training),
        kept (share of the prunable weights), mlflow_run_id. Only finished trials have results.

        Raises:
            SweepError: pandas is not installed.
        """
        return trial_table(self._results())

    def recommendation(self) -> list[Recommendation]:
        """The recommendation of each group with results, in the order of the sweep file.

        `{one.name: one for one in sweep.recommendation()}` finds one by its group. Validation values alone decide.
        """
        return list(self._results().recommendations)

    def curves(self, key: str, *, per: Literal["epoch", "round"] = "epoch") -> DataFrame:
        """The metrics of a trial over its epochs, the warm-up among them, or over its pruning rounds: a column for each.

        Raises:
            SweepError: there is no such trial, its file of metrics is gone or damaged, or pandas is not installed.
        """
        results = self._results()
        self._trial(results, key)
        points = results.curves([key]).get(key)
        if points is None:
            raise UserError(
                f"trial {key} of sweep {self.name!r} has no readable metrics: it has not begun, or its file is damaged",
                "`trials()` shows its state",
                code="metrics-missing",
            )
        return curve_table(points, per)

    def model(self, key: str | None = None, *, group: str | None = None) -> SparseModel:
        """The sparse model of a trial, to be used by its `predict`; its file is compared with the trial's record.

        Args:
            key: of a finished trial. By default that of the recommended configuration, of its seeds the one with the best
                validation accuracy.
            group: whose recommendation is meant, such as "s0.95", where there are several.

        Raises:
            SweepError: there is no such trial or group, several groups are left, or the model is gone or damaged.
        """
        from orchestrator.export.trial_model import trial_model

        results = self._results()
        trial = self._chosen(results, group).best_trial if key is None else self._trial(results, key)
        if trial.key not in results.records or results.spec is None:
            why = results.damage.get(trial.key, f"it is {trial.state}")
            message = f"trial {trial.key} of sweep {self.name!r} has no result: {why}"
            raise UserError(message, "`run` continues the sweep", code="trial-not-finished")
        return trial_model(self._folder.storage, results.spec, trial.key, dict(results.records[trial.key]))

    def heat_map(self, sparsity: float | None = None, *, split: Literal["validation", "test"] = "validation") -> Chart:
        """Accuracy over warm-up and iterations at a sparsity, as a chart that a notebook shows.

        Raises:
            SweepError: there is no heat map, none at this sparsity, or several are left.
        """
        from orchestrator.api.chart import heat_map

        return heat_map(self._results(), sparsity, split)

    def report(self) -> str:
        """The page that `report --html` writes: one HTML document that needs nothing else."""
        from orchestrator.page.page import html_page

        return html_page(self._results())

    def __repr__(self) -> str:
        return f"Sweep({self.name!r}, storage={self.storage!r})"

    def _repr_html_(self) -> str:
        """How many trials have finished, and the recommendation of each group."""
        results = self._results()
        counts = results.state.counts()
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        head = f"<b>{escape(self.name)}</b>: {counts['finished']} of {len(results.state.trials)} trials finished{failed}"
        lines = [f"<li>{escape(sentence(one))}<br>{escape(details(one)[0])}</li>" for one in results.recommendations]
        listed = f"<ul>{''.join(lines)}</ul>" if lines else "; nothing to recommend yet"
        return f"<div>{head}{listed}</div>"

    def _results(self) -> SweepResults:
        note_sweep(self.name, self.storage)  # for commands in messages
        return sweep_results(self._folder, self._folder.read_state() or SweepState(sweep=self.name))

    def _trial(self, results: SweepResults, key: str) -> TrialStatus:
        if key not in results.state.trials:
            raise UserError(f"no trial {key!r} in sweep {self.name!r}", "`trials()` lists them", code="trial-not-found")
        return results.state.trials[key]

    def _chosen(self, results: SweepResults, group: str | None) -> Recommendation:
        known = {one.name: one for one in results.recommendations}
        names = ", ".join(map(repr, known)) or "none"
        if group is not None and group not in known:
            message = f"group must be one with a recommendation, got {group!r}"
            raise UserError(message, f"there is {names}", code="group-not-found")
        if group is None and len(known) != 1:
            message = f"sweep {self.name!r} has a recommendation for {len(known)} groups"
            raise UserError(message, f"give group=, of {names}, or a trial's key", code="group-ambiguous")
        return known[group] if group is not None else next(iter(known.values()))
