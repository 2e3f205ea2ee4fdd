"""One method against every other: the statistics, what is paired, what is reported, and the heat maps over methods."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from orchestrator.errors import UserError
from orchestrator.figures import table as figures_table
from orchestrator.figures.heat_maps import maps_of_test
from orchestrator.page.artifacts import write_report
from orchestrator.page.settings import comparison_section
from orchestrator.recommendation.paired_test import paired_difference
from orchestrator.reporting.aggregate import config_summaries
from orchestrator.reporting.comparison import Comparison, Pair, can_compare, compare
from orchestrator.reporting.comparison_tables import notes_of, print_tables, tables_of
from orchestrator.reporting.heatmap_grids import Grid, grids
from orchestrator.reporting.report import make_report
from orchestrator.reporting.sweep_results import sweep_results
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.storage.factory import open_storage
from tests.support.cli import drive_sweep
from trainables.config.keys import complete
from trainables.config.methods import DriveConfig
from trainables.config.trial import DatasetConfig, TrainingConfig, TrialConfig

PLAIN = TrialConfig(dataset=DatasetConfig(name="digits"), model="convnet", sparsity=0.9)
DENSE = replace(PLAIN, method="dense", sparsity=0.0)


def sweep_of(*trials: Iterable[TrialStatus]) -> SweepState:
    state = SweepState(sweep="s")
    for trial in (one for group in trials for one in group):
        trial.key = trial.name = f"t{len(state.trials)}"
        state.trials[trial.key] = trial
    return state


def seeds_of(
    config: TrialConfig, test: dict[int, float], validation: float = 0.5, prune: float = 1.0, search: float = 2.0
) -> list[TrialStatus]:
    """Finished trials of one setting, by seed."""
    costs = {"cost/prune_seconds": prune, "cost/search_seconds": search}
    return [
        TrialStatus(
            key="",
            name="",
            state="finished",
            config=complete(replace(config, seed=seed)),
            metrics={"val/accuracy": validation, "test/accuracy": accuracy, **costs},
        )
        for seed, accuracy in test.items()
    ]


def of(method: Any, **changes: Any) -> TrialConfig:
    return replace(PLAIN, method=method, **changes)


def only_pair(state: SweepState) -> Pair:
    (pair,) = compare(state).pairs
    return pair


# the statistics


def test_the_test_agrees_with_the_closed_form_for_three_seeds() -> None:
    difference = paired_difference({0: 0.90, 1: 0.92, 2: 0.94}, {0: 0.89, 1: 0.90, 2: 0.91})
    # Differences 0.01, 0.02, 0.03: mean 0.02, deviation 0.01, t = 2 sqrt(3). With two degrees of freedom the distribution
    # function of Student's t is 1/2 + t / (2 sqrt(2 + t^2)), and its 97.5 % point is 4.302653 in any table.
    t = 2 * math.sqrt(3)
    assert difference.n == 3
    assert difference.mean == pytest.approx(0.02)
    assert difference.std == pytest.approx(0.01)
    assert difference.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert difference.interval == pytest.approx((0.02 - 4.302653 * 0.01 / math.sqrt(3), 0.02 + 4.302653 * 0.01 / math.sqrt(3)))
    assert not difference.significant


@pytest.mark.parametrize(("n", "point"), [(2, 12.7062), (3, 4.3027), (6, 2.5706), (11, 2.2281), (31, 2.0423)])
def test_a_mean_at_the_published_point_of_t_is_at_five_per_cent(n: int, point: float) -> None:
    noise = [(-1) ** seed * 0.01 for seed in range(n)]
    centre = sum(noise) / n
    std = math.sqrt(sum((value - centre) ** 2 for value in noise) / (n - 1))
    for factor, significant in ((0.999, False), (1.001, True)):
        mean = factor * point * std / math.sqrt(n)
        difference = paired_difference(
            {seed: value - centre + mean for seed, value in enumerate(noise)}, dict.fromkeys(range(n), 0.0)
        )
        assert difference.significant is significant
        assert difference.interval is not None
        assert (difference.interval[0] > 0) is significant


def test_the_test_agrees_with_another_implementation() -> None:
    mine, theirs = [0.91, 0.87, 0.93, 0.9, 0.88], [0.92, 0.9, 0.94, 0.93, 0.89]
    difference, known = paired_difference(dict(enumerate(mine)), dict(enumerate(theirs))), ttest_rel(mine, theirs)
    assert difference.p == pytest.approx(known.pvalue)
    assert difference.interval == pytest.approx(tuple(known.confidence_interval(0.95)))
    assert difference.mean < 0
    assert difference.significant


def test_one_seed_has_a_difference_and_no_test() -> None:
    difference = paired_difference({7: 0.9}, {7: 0.8})
    assert difference.mean == pytest.approx(0.1)
    assert (difference.std, difference.n, difference.p, difference.interval) == (None, 1, None, None)


def test_equal_differences_have_no_test_despite_rounding() -> None:
    assert 0.3 - 0.2 != 0.2 - 0.1
    difference = paired_difference({0: 0.3, 1: 0.2}, {0: 0.2, 1: 0.1})
    assert (difference.std, difference.p, difference.interval, difference.significant) == (0.0, None, None, False)


# what is paired with what


def test_seeds_pair_in_any_order_and_unpaired_ones_are_left_out() -> None:
    drive = seeds_of(of("drive"), {2: 0.93, 0: 0.90, 1: 0.91, 5: 0.1})
    snip = seeds_of(of("snip"), {1: 0.90, 9: 0.99, 2: 0.91, 0: 0.89})
    pair = only_pair(sweep_of(snip, drive))
    assert (pair.seeds, pair.unpaired) == ((0, 1, 2), (5, 9))
    assert pair.difference == paired_difference({0: 0.01, 1: 0.01, 2: 0.02}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert pair.reference_test - pair.other_test == pytest.approx(pair.difference.mean)
    assert "2 results were excluded, since only one side has finished their seed" in notes_of(compare(sweep_of(snip, drive)))


def test_unfinished_trials_do_not_count() -> None:
    running = seeds_of(of("snip"), {1: 0.5})
    running[0].state = "running"
    pair = only_pair(sweep_of(seeds_of(of("drive"), {0: 0.9, 1: 0.9}), seeds_of(of("snip"), {0: 0.8}), running))
    assert (pair.seeds, pair.unpaired) == ((0,), (1,))


def test_compare_chooses_the_best_of_both_sides_by_validation() -> None:
    """Whatever the test set says."""
    settings = [
        seeds_of(of("drive", prune_iterations=10), {0: 0.80}, validation=0.7),
        seeds_of(of("drive", prune_iterations=1), {0: 0.99}, validation=0.6),
        seeds_of(of("drive", prune_iterations=10, options=DriveConfig(normalize="rank")), {0: 0.98}, validation=0.5),
        seeds_of(of("snip", prune_iterations=1), {0: 0.70}, validation=0.9),
        seeds_of(of("snip", prune_iterations=10), {0: 0.10}, validation=0.8),
    ]
    pair = only_pair(sweep_of(*settings))
    assert (pair.reference.config.prune_iterations, pair.other.config.prune_iterations) == (10, 1)
    assert pair.reference.method_options == "drive.normalize=mean"
    assert pair.difference.mean == pytest.approx(0.10)


def test_cells_are_sparsity_warm_up_and_other_shared_axes() -> None:
    places = [(sparsity, warmup, lr) for sparsity in (0.9, 0.98) for warmup in (0, 2) for lr in (0.1, 0.2)]

    def at(method: str, place: tuple[float, int, float]) -> TrialConfig:
        return of(method, sparsity=place[0], warmup_epochs=place[1], training=TrainingConfig(lr=place[2]))

    drive = [seeds_of(at("drive", place), {0: 0.5 + index / 100}) for index, place in enumerate(places)]
    snip = [seeds_of(at("snip", place), {0: 0.5}) for place in places]
    comparison = compare(sweep_of(*drive, *snip))
    accuracies = {
        (one.cell.sparsity, one.cell.warmup_epochs, one.cell.extra_axes): round(one.difference.mean, 6)
        for one in comparison.pairs
    }
    assert accuracies == {(one[0], one[1], f"training.lr={one[2]}"): index / 100 for index, one in enumerate(places)}


def test_compare_reports_a_cell_without_the_other_method() -> None:
    drive = [seeds_of(of("drive", sparsity=sparsity), {0: 0.9}) for sparsity in (0.5, 0.9, 0.98)]
    comparison = compare(
        sweep_of(*drive, seeds_of(of("snip", sparsity=0.5), {0: 0.8}), seeds_of(of("random", sparsity=0.98), {1: 0.7}))
    )
    assert [(one.method, one.cell.sparsity, one.reason) for one in comparison.excluded] == [
        ("random", 0.5, "no finished trial there"),
        ("snip", 0.9, "no finished trial there"),
        ("random", 0.9, "no finished trial there"),
        ("snip", 0.98, "no finished trial there"),
        ("random", 0.98, "no seed that both have finished"),
    ]
    assert "snip: 2 cells of drive excluded, no finished trial there" in notes_of(comparison)
    assert [row.cells[1] for row in tables_of(comparison)[0].rows] == ["1 of 3", "0 of 3"]


def test_no_setting_is_chosen_without_validation_images() -> None:
    trials = [seeds_of(of("drive", prune_iterations=count), {0: 0.9}) for count in (1, 10)] + [seeds_of(of("snip"), {0: 0.8})]
    for trial in (one for group in trials for one in group):
        del trial.metrics["val/accuracy"]
    assert [one.reason for one in compare(sweep_of(*trials)).excluded] == ["no validation accuracy to choose a setting by"]
    assert only_pair(sweep_of(trials[1], trials[2])).difference.mean == pytest.approx(0.1)


def test_compare_pairs_the_dense_baseline_apart_from_methods() -> None:
    """The loss against the dense baseline is paired by seed, too."""
    comparison = compare(
        sweep_of(
            seeds_of(of("drive", warmup_epochs=2), {0: 0.90, 1: 0.92}),
            seeds_of(of("snip", warmup_epochs=2), {0: 0.90, 1: 0.92}),
            seeds_of(DENSE, {1: 0.97, 0: 0.96}, prune=0.0),
        )
    )
    assert comparison.methods == ("snip",)
    (loss,) = comparison.dense
    assert loss.difference == paired_difference({0: 0.90, 1: 0.92}, {0: 0.96, 1: 0.97})


def test_ratios_are_the_others_mean_seconds_over_the_references() -> None:
    pair = only_pair(
        sweep_of(
            seeds_of(of("drive"), {0: 0.9}, prune=1, search=5),
            seeds_of(of("drive"), {1: 0.9}, prune=3, search=5),
            seeds_of(of("snip"), {0: 0.9, 1: 0.9}, prune=0.5, search=15),
        )
    )
    assert (pair.prune_ratio, pair.search_ratio) == (0.25, 3.0)
    none = only_pair(sweep_of(seeds_of(of("drive"), {0: 0.9}, prune=0), seeds_of(of("snip"), {0: 0.9})))
    assert none.prune_ratio is None


# the summary, and the errors


def won_lost_and_open() -> SweepState:
    """Four cells over three seeds each: DRIVE wins once, loses twice, and neither."""
    other = {0: 0.800, 1: 0.801, 2: 0.803}
    shifts = {0.8: (0.10, 0.11, 0.12), 0.9: (-0.10, -0.11, -0.12), 0.95: (-0.10, -0.11, -0.12), 0.98: (0.10, -0.10, 0.03)}
    return sweep_of(
        *(
            seeds_of(of("drive", sparsity=sparsity), {seed: other[seed] + shift[seed] for seed in other})
            for sparsity, shift in shifts.items()
        ),
        *(
            seeds_of(of("snip", sparsity=sparsity), other, prune=prune, search=4)
            for sparsity, prune in ((0.8, 0.5), (0.9, 7.0), (0.95, 0.5), (0.98, 0.1))
        ),
    )


def test_summary_counts_both_ways_and_has_the_median_ratio() -> None:
    (summary,) = compare(won_lost_and_open()).summaries()
    assert (summary.cells, summary.better, summary.worse) == (4, 2, 2)
    assert (summary.significantly_better, summary.significantly_worse, summary.excluded) == (1, 2, 0)
    assert summary.mean_difference == pytest.approx(-0.025)
    assert (summary.prune_ratio, summary.search_ratio) == (0.5, 2.0)


def test_another_reference_turns_the_sign() -> None:
    forth, back = compare(won_lost_and_open()), compare(won_lost_and_open(), "snip")
    assert [-pair.difference.mean for pair in back.pairs] == [pair.difference.mean for pair in forth.pairs]
    assert [pair.difference.p for pair in back.pairs] == pytest.approx([pair.difference.p for pair in forth.pairs])


@pytest.mark.parametrize(
    ("methods", "reference", "message"),
    [
        (["drive", "dense"], "drive", r"prunes with drive alone.*method: \[drive, snip, magnitude\]"),
        (["dense"], "drive", "prunes with no method alone"),
        (["snip", "random"], "drive", r"no trials of drive; --method takes another reference, one of snip, random"),
        (["drive", "snip"], "synflow", "no trials of synflow"),
        (["drive", "snip", "dense"], "dense", "no trials of dense"),
    ],
)
def test_incomparable_sweeps_are_reported_with_a_hint(methods: list[str], reference: str, message: str) -> None:
    state = sweep_of(*(seeds_of(DENSE if method == "dense" else of(method), {0: 0.9}) for method in methods))
    with pytest.raises(UserError, match=message):
        compare(state, reference)
    assert can_compare(config_summaries(state)) is ({"drive", "snip"} <= set(methods))


def test_unfinished_reference_is_reported() -> None:
    state = sweep_of(seeds_of(of("drive"), {0: 0.9}), seeds_of(of("snip"), {0: 0.9}))
    state.trials["t0"].state = "waiting"
    with pytest.raises(UserError, match=r"no trial of drive in sweep 's' has finished; `drive-sweep status s`"):
        compare(state)
    assert not can_compare(config_summaries(state))


# what is shown


def stored(state: SweepState, tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(open_storage(str(tmp_path / "runs"), create=True), "s")
    folder.write_state(state)
    folder.storage.write_json(folder.file("trials.json"), {"trials": []})
    return folder


def test_the_command_shows_the_facts_within_110_columns(tmp_path: Path) -> None:
    folder = stored(won_lost_and_open(), tmp_path)
    out = drive_sweep("compare", "s", "--storage", folder.storage.root).stdout
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "snip 4 2 2 1 ▲ 2 ▼ -0.025 0.50 2.00" in lines
    assert "0.8 0 0.911 0.801 +0.110 ± 0.010 +0.085…+0.135 0.003 ▲ 3 0.50 2.00 1 | 1" in lines
    assert "0.9 0 0.691 0.801 -0.110 ± 0.010 -0.135…-0.085 0.003 ▼ 3 7.00 2.00 1 | 1" in lines
    assert "p values are not corrected for their number, 4" in out
    assert "Cells share seeds" in out
    assert max(map(len, out.splitlines())) <= 110
    assert "nan" not in out


@pytest.mark.parametrize("width", [80, 110, 160])
def test_tables_cut_nothing_off_in_a_narrow_terminal(width: int) -> None:
    drive = of("drive", prune_iterations=10, options=DriveConfig(normalize="rank"))
    other = of("module:myscores.taylor", prune_iterations=100)
    state = sweep_of(seeds_of(drive, {0: 0.911, 1: 0.923}), seeds_of(other, {0: 0.801, 1: 0.802}))
    console = Console(width=width, file=StringIO())
    tables = tables_of(compare(state, "drive"))
    print_tables(tables, console)
    out = cast(StringIO, console.file).getvalue()
    assert max(map(len, out.splitlines())) <= width
    for word in (word for table in tables for row in table.rows for cell in row.cells for word in re.split(r"[ :.…]", cell)):
        assert word in out


def test_the_command_answers_in_json_and_takes_another_method(tmp_path: Path) -> None:
    folder = stored(won_lost_and_open(), tmp_path)
    answer = json.loads(drive_sweep("compare", "s", "--method", "snip", "--json", "--storage", folder.storage.root).stdout)
    assert (answer["sweep"], answer["reference"], answer["tests"], answer["corrected"]) == ("s", "snip", 4, False)
    assert [one["significantly_worse"] for one in answer["summary"]] == [1]
    first = answer["cells"][0]
    assert (first["sparsity"], first["warmup_epochs"], first["seeds"]) == (0.8, 0, [0, 1, 2])
    assert first["difference"]["mean"] == pytest.approx(-0.11)
    assert first["other"] == first["other"] | {"method": "drive", "prune_iterations": 1, "trials": ["t0", "t1", "t2"]}
    error = drive_sweep("compare", "s", "--method", "dense", "--storage", folder.storage.root, expect=2).stderr
    assert "one of drive, snip" in error


def test_one_seed_and_equal_differences_are_explained() -> None:
    one = compare(sweep_of(seeds_of(of("drive"), {0: 0.9}), seeds_of(of("snip"), {0: 0.8})))
    assert tables_of(one)[1].rows[0].cells[4:7] == ("+0.100", "", "one seed")
    assert any("1 comparisons have one seed: no test" in line for line in notes_of(one))
    equal = compare(sweep_of(seeds_of(of("drive"), {0: 0.9, 1: 0.7}), seeds_of(of("snip"), {0: 0.8, 1: 0.6})))
    assert tables_of(equal)[1].rows[0].cells[4:7] == ("+0.100 ± 0.000", "", "all equal")
    assert any("the same difference in every seed" in line for line in notes_of(equal))


def test_chosen_options_of_a_method_are_shown_below_its_table() -> None:
    drive = [
        seeds_of(of("drive", prune_iterations=10, options=DriveConfig(normalize=how)), {0: 0.9}, validation=validation)  # type: ignore[arg-type]
        for how, validation in (("mean", 0.1), ("rank", 0.2))
    ]
    detail = tables_of(compare(sweep_of(*drive, seeds_of(of("snip"), {0: 0.8}))))[1]
    assert detail.rows[0].cells[-1] == "10#1 | 1"
    assert detail.footnote_line() == "#1: drive.normalize=rank"


def test_page_shows_losses_in_a_separate_colour(tmp_path: Path) -> None:
    page = comparison_section(make_report(stored(won_lost_and_open(), tmp_path), won_lost_and_open())).content
    # Whole lines of 11 cells, one won and two lost, and a count of the summary each.
    assert (page.count('class="win"'), page.count('class="lose"')) == (11 + 1, 2 * 11 + 1)


def test_the_report_has_the_comparison_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_table, "FIGURES", ())  # drawing takes its time
    folder = stored(won_lost_and_open(), tmp_path)
    written = write_report(folder, won_lost_and_open())
    assert json.loads(written["compare.json"])["reference"] == "drive"
    assert b"drive against the other methods" in written["report.html"]
    alone = sweep_of(seeds_of(of("drive"), {0: 0.9}))
    assert "compare.json" not in write_report(folder, alone)
    assert comparison_section(make_report(folder, alone)).content == ""


# heat maps


def mixed_methods(best_at_2: int) -> SweepState:
    """Two warm-ups; DRIVE over 1 and 10 iterations, the best at warm-up 2 given; magnitude, and dense."""
    return sweep_of(
        *(
            seeds_of(
                of("drive", warmup_epochs=warmup, prune_iterations=count),
                {0: count / 100},
                validation=0.3 + 0.3 * (count == best),
            )
            for warmup, best in ((0, 10), (2, best_at_2))
            for count in (1, 10)
        ),
        *(seeds_of(of("magnitude", warmup_epochs=warmup), {0: 0.5}, validation=0.5 + warmup / 5) for warmup in (0, 2)),
        seeds_of(DENSE, {0: 0.9}),
    )


def shown(grid: Grid) -> list[list[float]]:
    rows = range(len(grid.rows))
    tests = [[grid.cells[row, column].setting.test for column in range(len(grid.warmups))] for row in rows]
    return [[test.mean for test in row if test] for row in tests]


def test_methods_share_a_map_unless_they_have_a_choice() -> None:
    methods, drive = grids(config_summaries(mixed_methods(best_at_2=10)))
    assert (methods.title, methods.rows, methods.warmups) == (
        "methods, sparsity 0.9",
        ("drive (10 iterations)", "magnitude"),
        (0, 2),
    )
    assert shown(methods) == [[0.1, 0.1], [0.5, 0.5]]
    assert [place for place, field in methods.cells.items() if field.selected] == [(1, 1)]
    assert {field.note for field in methods.cells.values()} == {""}
    assert (drive.title, drive.rows, shown(drive)) == ("drive, sparsity 0.9", ("10", "1"), [[0.1, 0.1], [0.01, 0.01]])


def test_fields_show_iterations_that_differ_along_a_row() -> None:
    methods = grids(config_summaries(mixed_methods(best_at_2=1)))[0]
    assert methods.rows == ("drive", "magnitude")
    assert {place: field.note for place, field in methods.cells.items() if field.note} == {
        (0, 0): "10 iterations",
        (0, 1): "1 iteration",
    }
    assert shown(methods)[0] == [0.1, 0.01]


def test_a_sweep_of_one_method_has_its_maps_as_before() -> None:
    trials = [seeds_of(of("magnitude", warmup_epochs=warmup), {0: 0.5}) for warmup in (0, 2)]
    (grid,) = grids(config_summaries(sweep_of(*trials)))
    assert (grid.title, grid.rows, grid.warmups) == ("sparsity 0.9", ("1",), (0, 2))
    assert grids(config_summaries(sweep_of(trials[0]))) == []


def test_the_report_draws_and_prints_both_kinds_of_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = mixed_methods(best_at_2=1)
    folder = stored(state, tmp_path)
    maps = maps_of_test(sweep_results(folder, state))
    assert [figure.name for figure in maps] == ["heatmap-methods-s0.9", "heatmap-drive-s0.9"]
    make_report(folder, state).print()
    out = capsys.readouterr().out
    assert "0.0100  (1 iteration)" in out
    assert "test accuracy, drive, sparsity 0.9" in out
    assert "test accuracy, magnitude" not in out
    assert "drive-sweep compare s" in out


def test_comparison_without_baseline_has_no_line_for_it() -> None:
    comparison: Comparison = compare(won_lost_and_open())
    assert comparison.dense == ()
    assert [block.title for block in tables_of(comparison)] == ["summary over all cells", "drive against snip"]
