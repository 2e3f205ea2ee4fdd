"""`drive-sweep timings`: measures the timing table of a sweep's network on this machine."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from pathlib import Path

from orchestrator.commands.options import notify, spec_from
from orchestrator.commands.output_files import write_output
from orchestrator.errors import EXIT_DONE, UserError
from orchestrator.process.output import answer


def timings(options: Namespace) -> int:
    from orchestrator.export.measured_timings import measure_timings

    if options.batch < 1 or options.threads < 1:
        raise UserError("--batch and --threads must be at least 1", code="option-invalid")
    spec, began = spec_from(options), time.monotonic()
    record = measure_timings(
        spec,
        batch=options.batch,
        threads=options.threads,
        device="cuda" if options.gpu else "cpu",
        on_layer=lambda name: notify(f"measuring {name} ..."),
    )
    content = json.dumps(record, indent=1)
    write_output("--out", Path(options.out), f"{content}\n".encode())
    if options.json:
        answer(content)
    notify(f"wrote {options.out} in {time.monotonic() - began:.0f} s; `timings: {options.out}` in the sweep file names it")
    return EXIT_DONE
