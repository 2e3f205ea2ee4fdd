"""`drive-sweep export`: takes a model out of a sweep, in a form that needs nothing of this project."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from orchestrator.commands.options import notify, storage_from
from orchestrator.errors import EXIT_DONE
from orchestrator.process.output import answer
from orchestrator.state.sweep_folder import open_sweep


def export(options: Namespace) -> int:
    from orchestrator.export.export import CARD, NO_LICENSE, export_model

    folder = open_sweep(storage_from(options), options.name)
    notify("exporting and comparing with the trial's model, in a process without drive-sweep ...")
    facts = export_model(
        folder,
        Path(options.out),
        options.format,
        key=options.trial,
        sparsity=options.sparsity,
        license_=options.license or NO_LICENSE,
        measure_latency=not options.no_latency,
        others=("--format", options.format, "--out", options.out),
    )
    if options.json:
        answer(json.dumps(facts, indent=1))
    else:
        _print(facts)
    notify(f"wrote {options.out}; {Path(options.out, CARD)} says how to load it")
    return EXIT_DONE


def _print(facts: dict[str, Any]) -> None:
    from orchestrator.export.wording import accuracy_text, check_line, latency_head, latency_notes, latency_rows, size
    from orchestrator.terminal.tables import plain_table, stdout_console

    files = ", ".join(f"{one['name']} {size(one['bytes'])}" for one in facts["files"])
    print(f"trial      {facts['trial']} {facts['name']}: {facts['reason']}")
    for metric, label in (("val/accuracy", "validation"), ("test/accuracy", "test")):
        print(f"{label:11}{accuracy_text(facts, metric)}")
    print(f"files      {files}; dense weights alone {size(facts['dense_bytes'])}")
    print(f"check      {check_line(facts)}")
    if facts["latency"]:
        print(f"latency    {latency_head(facts)}")
        table = plain_table("", "", "", "", "")
        for row in latency_rows(facts):
            table.add_row(" " * 8, *row)
        table.show_header = False
        stdout_console().print(table)
        print("\n".join(latency_notes(facts)))
