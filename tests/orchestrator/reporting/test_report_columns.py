"""The table of the report's columns: a toy column shows in the terminal, in the page and in JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.page.settings import settings_section
from orchestrator.reporting import report_columns
from orchestrator.reporting.aggregate import ConfigSummary
from orchestrator.reporting.report import Report
from orchestrator.reporting.report_columns import COLUMNS, Column
from trainables.config.trial import DatasetConfig, TrialConfig

SETTING = ConfigSummary(
    config=TrialConfig(dataset=DatasetConfig(name="digits"), model="convnet", sparsity=0.9),
    varying={},
    validation=None,
    test=None,
    search_seconds=0.25,
    emptied_layers=0,
    missing=0,
    keys=("k",),
)


def test_toy_column_shows_everywhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    toy = Column(head="toy column", cell=lambda one: f"<{one.search_seconds}>", key="toy", value=lambda one: one.search_seconds)
    monkeypatch.setattr(report_columns, "COLUMNS", (*COLUMNS, toy))
    report = Report(sweep="x", settings=[SETTING], counts={"finished": 1, "failed": 0}, fingerprints=[])
    report.print()
    printed = capsys.readouterr().out
    assert "toy column" in printed
    assert "<0.25>" in printed
    page = settings_section(report).content
    assert ">toy column<" in page
    assert "&lt;0.25&gt;" in page
    assert report.to_json()["settings"][0]["toy"] == 0.25


def test_json_has_the_keys_that_readers_know() -> None:
    report = Report(sweep="x", settings=[SETTING], counts={"finished": 1}, fingerprints=[])
    assert list(report.to_json()["settings"][0]) == [
        "config",
        "method",
        "sparsity",
        "warmup_epochs",
        "chosen_warmup_epochs",
        "prune_iterations",
        "chosen_prune_iterations",
        "val/accuracy",
        "test/accuracy",
        "total_epochs",
        "kept_weights",
        "multiply_adds",
        "latency_by_table",
        "latency/speedup",
        "search_seconds",
        "best",
        "trials",
    ]


def test_settings_of_channels_are_named_by_what_their_sparsity_is_a_share_of() -> None:
    channels = {"granularity": "channel", "target.channels": None, "target.multiply_adds": 0.5, "rewind": "init"}
    assert replace(SETTING, varying=channels).extra_axes == "channel, of multiply-adds, rewind=init"
    assert replace(SETTING, varying={"granularity": "weight", "target.channels": None}).extra_axes == "weight"


def test_blocks_of_a_line_stand_without_gaps(capsys: pytest.CaptureFixture[str]) -> None:
    def lines_of(sparsities: list[float]) -> int:
        settings = [replace(SETTING, config=replace(SETTING.config, sparsity=sparsity)) for sparsity in sparsities]
        Report(sweep="x", settings=settings, counts={"finished": 1, "failed": 0}, fingerprints=[]).print()
        return capsys.readouterr().out.split("\n* ")[0].rstrip().count("\n")

    assert lines_of([0.8, 0.8, 0.9]) == lines_of([0.8, 0.8, 0.8]) + 1
    assert lines_of([0.7, 0.8, 0.9]) == lines_of([0.8, 0.8, 0.8])
