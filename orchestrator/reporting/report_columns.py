"""The columns of the report: one table from which the terminal's table, the HTML page and the JSON answer follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.reporting.aggregate import ConfigSummary, MeanStd, several_methods
from trainables.config.lookup import method_label
from trainables.config.methods import DENSE
from trainables.config.trial import Label


def _always(settings: Sequence[ConfigSummary]) -> bool:
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column.

    Attributes:
        cell: its text for a setting.
        is_shown: whether tables of these settings have it.
        key: name of the value in JSON, which always has it; empty if JSON has none.
        value: what stands there.
        leaves: of columns that do not fit, the one with the highest number is left out first; those with 0 never are.
        wraps: whether its cells take several lines where even the columns that stay do not fit.
    """

    head: str
    cell: Callable[[ConfigSummary], str]
    is_shown: Callable[[Sequence[ConfigSummary]], bool] = _always
    key: str = ""
    value: Callable[[ConfigSummary], Any] = lambda setting: None
    leaves: int = 0
    wraps: bool = False


def shown_columns(settings: Sequence[ConfigSummary]) -> list[Column]:
    return [column for column in COLUMNS if column.is_shown(settings)]


def fitting_columns(settings: Sequence[ConfigSummary], width: int, gap: int = 2) -> tuple[list[Column], list[Column]]:
    """The shown columns that fit into so many characters, and those that do not."""
    columns, left_out = shown_columns(settings), []
    widths = {column.head: max(map(len, [column.head, *map(column.cell, settings)])) for column in columns}
    while sum(widths[column.head] + gap for column in columns) > width:
        column = max(columns, key=lambda one: one.leaves)
        if not column.leaves:
            break
        columns.remove(column)
        left_out.append(column)
    return columns, left_out


def json_values(setting: ConfigSummary) -> dict[str, Any]:
    return {column.key: column.value(setting) for column in COLUMNS if column.key}


def _sparsity(setting: ConfigSummary) -> str:
    return DENSE if setting.is_dense else f"{setting.config.sparsity!r}{' *' if setting.best else ''}"


def _test(setting: ConfigSummary) -> str:
    return str(setting.test) + (f"  ({setting.emptied_layers} layers empty)" if setting.emptied_layers else "")


def _seeds(setting: ConfigSummary) -> str:
    if setting.test is None:
        return "0"
    return f"{setting.test.n} of {setting.test.n + setting.missing}" if setting.missing else str(setting.test.n)


def _unless_dense(text: Callable[[ConfigSummary], str]) -> Callable[[ConfigSummary], str]:
    return lambda setting: "" if setting.is_dense else text(setting)


def _label(label: Label, chosen: Sequence[int]) -> str:
    """A number, or `auto (6, 7)` with what the seeds chose."""
    return f"{label} ({_listed(chosen)})" if label == "auto" else str(label)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _share(share: float | None) -> str:
    return "not known" if share is None else f"{100 * share:.1f} %"


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def _spread(values: MeanStd | None) -> dict[str, Any] | None:
    return None if values is None else {"mean": values.mean, "std": values.std, "n": values.n}


COLUMNS = (
    Column(
        head="method",
        cell=lambda one: method_label(one.config.method),
        is_shown=several_methods,
        key="method",
        value=lambda one: one.config.method,
    ),
    Column(head="sparsity", cell=_sparsity, key="sparsity", value=lambda one: one.config.sparsity),
    Column(
        head="other",
        cell=lambda one: one.extra_axes,
        is_shown=lambda settings: any(one.extra_axes for one in settings),
        wraps=True,
    ),
    Column(
        head="warm-up",
        cell=_unless_dense(lambda one: _label(one.config.warmup_label, one.chosen_warmups)),
        key="warmup_epochs",
        value=lambda one: one.config.warmup_label,
    ),
    Column(
        head="chosen warm-up",
        cell=lambda one: _listed(one.chosen_warmups),
        is_shown=lambda settings: False,  # the column before shows it
        key="chosen_warmup_epochs",
        value=lambda one: one.chosen_warmups,
    ),
    Column(
        head="iters",
        cell=_unless_dense(lambda one: _label(one.config.iterations_label, one.chosen_iterations)),
        key="prune_iterations",
        value=lambda one: one.config.iterations_label,
    ),
    Column(
        head="chosen iters",
        cell=lambda one: _listed(one.chosen_iterations),
        is_shown=lambda settings: False,
        key="chosen_prune_iterations",
        value=lambda one: one.chosen_iterations,
    ),
    Column(
        head="val accuracy",
        cell=lambda one: str(one.validation) if one.validation else "",
        key="val/accuracy",
        value=lambda one: _spread(one.validation),
    ),
    Column(head="test accuracy", cell=_test, key="test/accuracy", value=lambda one: _spread(one.test), leaves=2),
    Column(head="seeds", cell=_seeds, leaves=5),
    Column(
        head="epochs",
        cell=lambda one: f"{one.trained_epochs:g}",
        key="total_epochs",
        value=lambda one: _number(one.trained_epochs),
        leaves=6,
    ),
    Column(
        head="kept weights",
        cell=_unless_dense(lambda one: _share(one.kept_weights)),
        is_shown=lambda settings: any(one.config.prunes_channels or one.config.uses_timings for one in settings),
        key="kept_weights",
        value=lambda one: one.kept_weights,
        leaves=4,
    ),
    Column(
        head="multiply-adds",
        cell=_unless_dense(lambda one: _share(one.multiply_adds)),
        is_shown=lambda settings: any(one.config.prunes_channels for one in settings),
        key="multiply_adds",
        value=lambda one: one.multiply_adds,
        leaves=3,
    ),
    Column(
        head="time by table",
        cell=lambda one: "" if one.latency_by_table is None else _share(one.latency_by_table),
        is_shown=lambda settings: any(one.latency_by_table is not None for one in settings),
        key="latency_by_table",
        value=lambda one: one.latency_by_table,
        leaves=5,
    ),
    Column(
        head="speed-up",
        cell=lambda one: str(one.speedup) if one.speedup else "",
        is_shown=lambda settings: any(one.speedup for one in settings),
        key="latency/speedup",
        value=lambda one: _spread(one.speedup),
        leaves=1,
    ),
    Column(
        head="search s",
        cell=_unless_dense(lambda one: f"{one.search_seconds:.2f}"),
        key="search_seconds",
        value=lambda one: one.search_seconds,
        leaves=7,
    ),
)
