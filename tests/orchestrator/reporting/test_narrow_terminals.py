"""The report's tables in terminals of several widths: no number is cut, no line is too long, what is left out is named."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from orchestrator.prose import print_prose
from orchestrator.reporting.aggregate import ConfigSummary, MeanStd
from orchestrator.reporting.heatmap_grids import grids
from orchestrator.reporting.report import Report
from orchestrator.reporting.report_columns import fitting_columns, shown_columns
from orchestrator.reporting.terminal_heatmap import terminal_maps
from trainables.config.trial import DatasetConfig, TrialConfig

WARMUPS = (0, 1, 2, 5, 10, 20, 50, 100, 150, 200)


def setting(method: str, warmup: int, iterations: int) -> ConfigSummary:
    accuracy = 0.9 + 0.0001 * warmup + 0.001 * (iterations == 10 * (warmup % 2 + 1))
    config = TrialConfig(
        dataset=DatasetConfig(name="digits"),
        model="convnet",
        method=method,
        sparsity=0.95,
        warmup_epochs=warmup,
        prune_iterations=iterations,
    )
    return ConfigSummary(
        config=config,
        varying={},
        validation=MeanStd(mean=accuracy, std=0.0123, n=3),
        test=MeanStd(mean=accuracy, std=0.0123, n=3),
        search_seconds=12.5,
        emptied_layers=0,
        missing=0,
        keys=(f"{method}{warmup}{iterations}",),
    )


SETTINGS = [setting("drive", warmup, iterations) for warmup in WARMUPS for iterations in (10, 20)]
SETTINGS += [setting("magnitude", warmup, 1) for warmup in WARMUPS]


def printed(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    Report(sweep="x", settings=SETTINGS, counts={"finished": 30, "failed": 0}, fingerprints=[]).print()
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_no_number_is_cut_and_no_line_is_too_long(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(width, monkeypatch, capsys)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    assert text.count("0.902 ± 0.012") >= 2
    flat = " ".join(text.split())
    for one in shown_columns(SETTINGS):
        in_head = any(re.search(rf"(^| ){re.escape(one.head)}( |$)", line) for line in lines if "sparsity" in line)
        assert in_head != bool(re.search(rf"without [^;]*{re.escape(one.head)}[^;]*, for which", flat)), one.head


def test_columns_leave_in_their_order_and_some_never() -> None:
    full, none = fitting_columns(SETTINGS, 200)
    assert (full, none) == (shown_columns(SETTINGS), [])
    left_out = [[column.head for column in fitting_columns(SETTINGS, width)[1]] for width in (90, 80, 70, 60, 10)]
    assert left_out[-1] == ["search s", "epochs", "seeds", "test accuracy"]
    assert all(left_out[-1][: len(some)] == some for some in left_out)
    assert [len(some) for some in left_out] == sorted(len(some) for some in left_out)


@pytest.mark.parametrize("width", [40, 80, 300])
def test_a_heat_map_goes_on_below_where_it_does_not_fit(width: int) -> None:
    for grid in grids(SETTINGS):
        console = Console(file=io.StringIO(), width=width, color_system=None)
        parts = terminal_maps(grid, width)
        for part in parts:
            console.print(part)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert max(map(len, text.splitlines())) <= width
        assert (len(parts) == 1) == (width == 300)
        for one in grid.settings:
            assert one.test is None or f"{one.test.mean:.4f}" in text
        heads = [head for line in text.splitlines() if "warm-up" in line for head in line.split("warm-up")[1].split()]
        assert heads == [str(warmup) for warmup in WARMUPS]


def test_prose_is_one_line_in_a_file_and_wrapped_by_words_on_a_terminal() -> None:
    line = "  " + " ".join(["word"] * 30)
    file, terminal = Console(file=io.StringIO(), width=40), Console(file=io.StringIO(), width=40, force_terminal=True)
    for console in (file, terminal):
        print_prose(console, line)
    assert file.file.getvalue() == f"{line}\n"  # type: ignore[attr-defined]
    wrapped = terminal.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(wrapped) > 3
    assert all(one.startswith("  word") and len(one) <= 40 for one in wrapped)
    assert " ".join(" ".join(wrapped).split()) == line.strip()


def test_a_recommended_row_keeps_its_star(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(globals(), "SETTINGS", [replace(SETTINGS[0], best=True), *SETTINGS[1:]])
    assert sum("0.95 *" in line for line in printed(60, monkeypatch, capsys)) == 1
