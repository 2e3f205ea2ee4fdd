"""`drive-sweep data`: counts and anomalies of a sweep's data, and a picture of what the network sees."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.table import Table

from orchestrator.commands.options import notify, spec_from
from orchestrator.commands.output_files import write_output
from orchestrator.errors import EXIT_DONE, UserError
from orchestrator.preflight.data import (
    PreflightError,
    all_settings,
    data_preflight,
    dataset_settings,
    describe_split,
    findings_of,
    numbered,
)
from orchestrator.process.output import answer
from orchestrator.search.plans import plan_sweep
from orchestrator.storage.factory import open_storage
from orchestrator.terminal.tables import plain_table, stdout_console
from trainables.config.keys import canonical

SHOWN_CLASSES = 20


def data(options: Namespace) -> int:
    spec = spec_from(options)
    storage = open_storage(spec.storage, create=True)
    plan = plan_sweep(spec, storage, hash_data=True).checked
    settings = dataset_settings(plan)
    reports = []
    for number, dataset in enumerate(settings, start=1):
        try:
            report, sheet = data_preflight(plan, storage, dataset)
        except PreflightError as error:
            raise UserError(error.message, error.hint, code="data-invalid") from error
        picture = _write_picture(sheet, Path(options.out or f"{spec.name}-data.png"), number)
        reports.append(report | {"setting": canonical(dataset), "picture": str(picture)})
    if options.json:
        answer(json.dumps(reports[0] | {"others": reports[1:]}, indent=1))
    for dataset, report in zip(settings, reports, strict=True):
        if not options.json:
            print_report(report, describe_split(dataset, settings))
        notify(f"wrote {report['picture']}")
    if hidden := len(all_settings(plan)) - len(settings):
        notify(f"{hidden} more ways to split the data are not shown; --set chooses one")
    return EXIT_DONE


def _write_picture(sheet: bytes, first: Path, number: int) -> Path:
    picture = first.with_stem(numbered(first.stem, number))
    write_output("--out", picture, sheet)
    return picture


def print_report(report: dict[str, Any], setting: str) -> None:
    console = stdout_console()
    if setting:
        console.print(setting, style="bold", markup=False)
    channels, height, width = report["image_shape"]
    console.print(f"{report['dataset']}: {channels} x {height} x {width}, {len(report['classes'])} classes", markup=False)
    console.print(_counts(report))
    files = report["files"]
    if files:
        sampled = "" if files["headers_read"] == files["number"] else f" (headers of {files['headers_read']:,} read)"
        console.print(f"files: {files['number']:,}{sampled}")
        others = f", {files['other_sizes']} others" if files["other_sizes"] else ""
        console.print(f"  sizes: {_tally(files['sizes'])}{others}")
        console.print("  kinds: " + _tally(files["kinds"]))
    duplicates = report["duplicates"]
    console.print(
        f"equal images: {duplicates['train_test']} of test in training or validation, {duplicates['train_validation']} of "
        f"validation in training, {duplicates['within_training']} within training",
        soft_wrap=True,
    )
    for finding in findings_of(report):
        style = {"error": "red", "warning": "yellow"}.get(finding.severity, "dim")
        console.print(f"{finding.severity}: {finding}", style=style, markup=False, soft_wrap=True)
    console.print(f"computed in {report['seconds']:.1f} s, and kept for this data and split", style="dim")


def _counts(report: dict[str, Any]) -> Table:
    """Images by class and split; only the smallest and the largest of many classes."""
    splits = report["splits"]
    table = plain_table("class", numbers=splits)
    order = list(range(len(report["classes"])))
    if len(order) > SHOWN_CLASSES:
        by_size = sorted(order, key=lambda label: splits["training"]["by_class"][label])
        order = [*by_size[: SHOWN_CLASSES // 2], -1, *by_size[-SHOWN_CLASSES // 2 :]]
    for label in order:
        if label < 0:
            table.add_row("...")
            continue
        table.add_row(report["classes"][label], *(f"{split['by_class'][label]:,}" for split in splits.values()))
    table.add_row("all", *(f"{split['images']:,}" for split in splits.values()), style="bold")
    return table


def _tally(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())
