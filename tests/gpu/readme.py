"""The README's lines about GPUs, made from the measurements that are kept beside this file; without any they say so.

python -m tests.gpu.readme gpu.json     # keeps that report as tests/gpu/measured.json and writes the README's table
python -m tests.gpu.readme              # writes the README's lines again
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from tests import ROOT
from tests.gpu.report import Report, read_report, value_of, verdict_of
from tests.gpu.rows import State
from tests.gpu.table import SECTIONS

MEASURED = Path(__file__).with_name("measured.json")
README = ROOT / "README.md"
MARKER = "gpu"
NOT_RUN = "No GPU was at hand so far, so nothing was measured on one; `python -m tests.gpu` does so in 9 minutes.\n"
MOST_FIGURES = 4  # with an aim, columns of the table, since the README is short; the file has all


def readme_lines(report: Report | None) -> str:
    """What stands between the README's markers.

    Raises:
        ValueError: the report is not of a whole run on a GPU.
    """
    if report is None:
        return NOT_RUN
    lacking = [section.name for section in SECTIONS if section.name not in report.rows]
    if report.machine["device"] != "cuda" or report.brief or lacking:
        got = f"one without {', '.join(lacking)}" if lacking else "one on a CPU or a brief one"
        raise ValueError(f"the README's table must be made from a whole run on a GPU, got {got}")
    rows = [row for each in report.rows.values() for row in each]
    failed = sum(row.state is State.FAILED for row in rows)
    aimed = [row for row in rows if row.state is State.MEASURED and row.ok is not None][:MOST_FIGURES]
    machine, day = report.machine, report.date[:10]
    checks = f"{sum(row.state is State.PASSED for row in rows)} checks passed, {failed} failed"
    table = [
        [row.name for row in aimed],
        ["---"] * len(aimed),
        [f"{value_of(row)} (aim {verdict_of(row)})" for row in aimed],
    ]
    return "\n".join(
        [
            f"`python -m tests.gpu` on one {machine['name']} ({day}, PyTorch {machine['packages']['torch']}): {checks}.",
            "",
            *(f"| {' | '.join(cells)} |" for cells in table if cells),
            "",
        ]
    )


def with_lines(readme: str, lines: str) -> str:
    """The README's text with these lines between the markers."""
    begin, end = f"<!-- {MARKER} -->\n", f"<!-- /{MARKER} -->"
    return re.sub(f"{begin}.*?{end}", lambda found: f"{begin}{lines}{end}", readme, flags=re.DOTALL)


def measured_report() -> Report | None:
    return read_report(MEASURED) if MEASURED.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.readme", description="writes the README's lines about GPUs")
    parser.add_argument("report", type=Path, nargs="?", help="gpu.json of a whole run on a GPU, to be kept")
    options = parser.parse_args()
    if options.report is not None:
        try:
            readme_lines(read_report(options.report))  # refuses one that is not
        except (OSError, ValueError) as error:
            parser.error(str(error))
        shutil.copyfile(options.report, MEASURED)
    README.write_text(with_lines(README.read_text(), readme_lines(measured_report())))


if __name__ == "__main__":
    main()
