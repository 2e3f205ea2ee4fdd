"""The README says of GPUs what the kept measurements say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.gpu.readme import README, measured_report, readme_lines, with_lines
from tests.gpu.report import Report, read_report
from tests.gpu.rows import checked, failed, measured, skipped
from tests.gpu.table import SECTIONS

REPORT = Report(
    date="2031-01-02T03:04:05+00:00",
    seconds=500.0,
    brief=False,
    machine={"device": "cuda", "name": "NVIDIA X", "packages": {"torch": "9.9"}},
    packages=("torch",),
    rows={section.name: [skipped(section.name, "no time")] for section in SECTIONS}
    | {
        "checks": [checked("a rule", True, "holds"), failed("another", "on purpose"), skipped("a third", "no time")],
        "throughput": [
            measured("images", 61_234, "images/s", aim="60,000", ok=True),
            measured("rounds", 1.2, "times", aim="at most 1.10", ok=False),
            measured("no aim", 3),
        ],
    },
)


def test_the_readme_says_what_was_measured() -> None:
    text = README.read_text()
    assert text == with_lines(text, readme_lines(measured_report())), "`python -m tests.gpu.readme` writes it"


def test_a_table_has_figures_with_an_aim(tmp_path: Path) -> None:
    REPORT.write(tmp_path / "gpu.json")
    lines = readme_lines(read_report(tmp_path / "gpu.json")).splitlines()
    assert lines == [
        "`python -m tests.gpu` on one NVIDIA X (2031-01-02, PyTorch 9.9): 1 checks passed, 1 failed.",
        "",
        "| images | rounds |",
        "| --- | --- |",
        "| 61,234 images/s (aim 60,000: holds) | 1.2 times (aim at most 1.10: missed) |",
    ]


@pytest.mark.parametrize(
    "report", [replace(REPORT, brief=True), replace(REPORT, machine={"device": "cpu"}), replace(REPORT, rows={"checks": []})]
)
def test_a_run_that_is_brief_or_on_a_cpu_or_of_some_sections_makes_no_table(report: Report) -> None:
    with pytest.raises(ValueError, match="must be made from a whole run on a GPU"):
        readme_lines(report)
