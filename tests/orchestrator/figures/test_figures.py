"""Figures of a sweep: what they show is what the records say, and each is drawn as PNG and as SVG."""

from __future__ import annotations

import statistics
from dataclasses import replace
from html import unescape
from typing import Any
from xml.etree import ElementTree

import pytest
from scipy import stats

from orchestrator.figures import table
from orchestrator.figures.accuracy_over_cost import accuracy_over_cost
from orchestrator.figures.accuracy_over_sparsity import accuracy_over_sparsity
from orchestrator.figures.figure import Figure, share_axis
from orchestrator.figures.heat_maps import interval_of_mean, maps_of_test, maps_of_validation
from orchestrator.figures.layer_densities import layer_densities
from orchestrator.figures.learning_curves import learning_curves
from orchestrator.figures.pruning_cost import pruning_cost
from orchestrator.figures.render import png, svg
from orchestrator.figures.search_slices import search_slices
from orchestrator.figures.table import draw_figures
from orchestrator.reporting.aggregate import MeanStd
from orchestrator.reporting.sweep_results import SweepResults
from orchestrator.reporting.time_spent import time_spent
from orchestrator.state.sweep_state import Progress, TrialStatus


def rows(figure: Figure) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = figure.spec["data"]["values"]
    return values


def trials(results: SweepResults, **config: Any) -> list[TrialStatus]:
    """The finished trials whose configuration has these values."""
    return [
        trial for trial in results.state.trials.values() if trial.state == "finished" and config.items() <= trial.config.items()
    ]


def mean(results: SweepResults, metric: str, **config: Any) -> float:
    return statistics.fmean(trial.metrics[metric] for trial in trials(results, **config))


def test_heat_maps_show_every_setting_with_its_interval(two_methods: SweepResults) -> None:
    figures = {figure.name: figure for figure in maps_of_validation(two_methods)}
    assert list(figures) == [
        f"heatmap-validation-{kind}-s{sparsity}" for kind in ("methods", "drive") for sparsity in (0.9, 0.95)
    ]
    assert [figure.name.replace("-validation", "") for figure in figures.values()] == [
        figure.name for figure in maps_of_test(two_methods)
    ]
    cells = rows(figures["heatmap-validation-drive-s0.95"])
    assert len(cells) == 4
    for cell in cells:
        config = {
            "method": "drive",
            "sparsity": 0.95,
            "warmup_epochs": int(cell["warmup"]),
            "prune_iterations": int(cell["row"]),
        }
        values = [trial.metrics["val/accuracy"] for trial in trials(two_methods, **config)]
        assert cell["mean"] == pytest.approx(statistics.fmean(values), rel=1e-5)
        low, high = stats.t.interval(0.95, 2, statistics.fmean(values), stats.sem(values))
        assert cell["interval"] == f"{100 * low:.2f} % to {100 * high:.2f} %"
    chosen = next(one for one in two_methods.recommendations if one.name == "drive-s0.95").best.values
    assert [(int(cell["warmup"]), int(cell["row"])) for cell in cells if cell["selected"]] == [
        (chosen["warmup_epochs"], chosen["prune_iterations"])
    ]


def test_one_seed_has_no_interval(two_methods: SweepResults) -> None:
    figure = next(one for one in maps_of_test(two_methods) if one.name == "heatmap-drive-s0.9")
    single = [cell for cell in rows(figure) if cell["seeds"] == "1, 2 seeds missing"]
    assert [(cell["interval"], len(cell["text"])) for cell in single] == [("not known with one seed", 1)]
    assert interval_of_mean(MeanStd(mean=0.9, std=None, n=1)) is None
    interval = interval_of_mean(MeanStd(mean=0.99, std=0.1, n=2))
    assert interval == pytest.approx((0.99 - 12.7062 * 0.1 / 2**0.5, 1.0), abs=1e-4)


def test_lines_over_sparsity_are_the_recommended_settings(two_methods: SweepResults) -> None:
    (figure,) = accuracy_over_sparsity(two_methods)
    assert [(row["series"], row["sparsity"]) for row in rows(figure)] == [
        (method, sparsity) for method in ("drive", "imp") for sparsity in ("90 %", "95 %")
    ]
    for row, one in zip(rows(figure), two_methods.recommendations, strict=True):
        values = [trial.metrics["test/accuracy"] for trial in one.best.trials.values()]
        assert row["mean"] == pytest.approx(statistics.fmean(values), rel=1e-5)
        assert row["high"] - row["mean"] == pytest.approx(statistics.stdev(values), rel=1e-2)
    dense = mean(two_methods, "test/accuracy", method="dense")
    assert f"The dense network has {100 * dense:.2f} %." in figure.description


def test_points_over_cost_have_the_counts_of_the_records(two_methods: SweepResults) -> None:
    multiply_adds, size = accuracy_over_cost(two_methods)
    assert len(rows(multiply_adds)) == len(rows(size)) == len(two_methods.settings)
    for row, setting in zip(rows(multiply_adds), two_methods.settings, strict=True):
        assert row["cost"] == pytest.approx(two_methods.records[setting.keys[0]]["kept_flops"], rel=1e-5)
    assert sum(row["chosen"] for row in rows(size)) == len(two_methods.recommendations)


def test_layers_are_those_of_the_recommended_models(two_methods: SweepResults) -> None:
    (figure,) = layer_densities(two_methods)
    assert len(rows(figure)) == 3 * len(two_methods.recommendations)
    head = next(row for row in rows(figure) if (row["group"], row["layer"]) == ("drive-s0.95", "head"))
    assert head["density"] == pytest.approx(round(1280 * 0.05**0.8) / 1280, rel=1e-5)


def test_curves_are_means_over_seeds(two_methods: SweepResults) -> None:
    figure = learning_curves(two_methods)[0]
    one = two_methods.recommendations[0]
    best = [row for row in rows(figure) if row["setting"].startswith("★")]
    assert [row["epoch"] for row in best] == list(range(1, one.best.config.total_epochs + 1))
    assert best[-1]["mean"] == pytest.approx(statistics.fmean(one.best.metric("val/accuracy").values()), rel=1e-5)
    assert {"dense"} <= {row["setting"] for row in rows(figure)}


def test_long_curves_are_thinned_to_their_end(two_methods: SweepResults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.figures.learning_curves.MOST_POINTS", 2)
    for row in (row for figure in learning_curves(two_methods) for row in rows(figure)):
        assert row["epoch"] in (1, 3, 4, 6, 7) or row["setting"] == "dense", row
    ends = {row["setting"]: row["epoch"] for row in rows(learning_curves(two_methods)[0])}
    assert ends[next(name for name in ends if name.startswith("★"))] == two_methods.recommendations[0].best.config.total_epochs


def test_cost_stands_beside_that_of_imp(two_methods: SweepResults) -> None:
    (figure,) = pruning_cost(two_methods)
    by_group = {one.name: one for one in two_methods.recommendations}
    for row in rows(figure):
        best = by_group[row["group"]].best
        whole, pruning = (best.mean(f"cost/{part}_dense_epochs") or 0.0 for part in ("search", "prune"))
        assert row["epochs"] == pytest.approx(pruning if row["part"] == "pruning" else whole - pruning, abs=1e-5)
    drive, imp = (by_group[name].best.mean("cost/search_dense_epochs") for name in ("drive-s0.9", "imp-s0.9"))
    assert drive
    assert imp
    assert f"drive-s0.9 {drive:.3g} (IMP costs {imp / drive:.3g} times that)" in figure.description


def test_no_time_of_the_slots_is_lost_or_counted_twice(two_methods: SweepResults) -> None:
    spent = time_spent(two_methods)
    progress = two_methods.state.progress
    assert spent.overhead is not None
    assert spent.idle is not None
    parts = spent.warmup + spent.pruning + spent.training + spent.overhead + spent.other + spent.idle
    assert progress.slots
    assert parts == pytest.approx(progress.slots * progress.seconds)
    # Each seed trains 2 epochs of warm-up once, at 0.1 s; each other trial that begins with them saves them.
    users = [trial for trial in trials(two_methods, warmup_epochs=2) if trial.config["method"] != "dense"]
    assert spent.warmup == pytest.approx(3 * 0.2)
    assert spent.saved == pytest.approx(0.2 * (len(users) - 3))


def test_reused_trials_cost_nothing(two_methods: SweepResults) -> None:
    reused = next(iter(two_methods.records))
    records = {key: dict(record) | {"sweep": "another"} for key, record in two_methods.records.items()}
    state = replace(two_methods.state, trials={key: replace(one, seconds=0.0) for key, one in two_methods.state.trials.items()})
    spent = time_spent(replace(two_methods, records=records, state=state))
    assert (spent.reused, spent.pruning, spent.overhead) == (len(records), 0.0, None)
    assert reused in records


def test_each_figure_is_drawn_with_its_text(two_methods: SweepResults) -> None:
    drawn = draw_figures(two_methods)
    assert [kind.title for kind, _ in drawn] == [kind.title for kind in table.FIGURES if kind.draw is not search_slices]
    for _, figures in drawn:
        image = svg(figures[0]).decode()
        assert "var(--" not in image
        assert figures[0].title in image
        assert f"<desc>{figures[0].description}</desc>" in unescape(image)
        assert ElementTree.fromstring(image).tag.endswith("svg")
        assert png(figures[0]).startswith(b"\x89PNG")


def test_a_sweep_without_results_has_no_figures(two_methods: SweepResults) -> None:
    trials = {key: replace(trial, state="waiting", seconds=0.0) for key, trial in two_methods.state.trials.items()}
    state = replace(two_methods.state, trials=trials, warmups={}, progress=Progress())
    empty = replace(two_methods, settings=(), recommendations=(), records={}, state=state)
    assert draw_figures(empty) == []


@pytest.mark.parametrize(
    ("shares", "domain"),
    [
        ([0.7, 0.71], None),
        ([0.7333333, 0.7333334], [0.72833335, 0.73833335]),
        ([1.0], [0.99, 1.0]),
        ([0.0, 0.001], [0.0, 0.01]),
    ],
)
def test_axis_of_almost_equal_shares_has_labels_that_differ(shares: list[float], domain: list[float] | None) -> None:
    scale = share_axis(shares)["scale"]
    assert scale == {"zero": False} if domain is None else scale["domain"] == pytest.approx(domain, rel=1e-9)
