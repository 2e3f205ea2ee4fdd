"""The maintenance commands of a storage and its runs: doctor and sync."""

from __future__ import annotations

import json
from argparse import Namespace

from orchestrator.command_line import DEFAULT_STORAGE
from orchestrator.commands.options import notify, spec_from, storage_from, warn_of_unused_environment
from orchestrator.errors import EXIT_DONE, EXIT_ENVIRONMENT
from orchestrator.process.output import answer
from orchestrator.state.sweep_folder import open_sweep


def doctor(options: Namespace) -> int:
    from orchestrator.diagnostics.doctor import run_checks
    from orchestrator.diagnostics.view import print_checks

    spec = spec_from(options) if options.file else None
    storage = spec.storage if spec else options.storage or DEFAULT_STORAGE
    if spec is not None:
        warn_of_unused_environment(spec)
    checks = run_checks(spec, storage, options.tracking_uri, options.address, options.fix)
    done = list(checks) if options.json else print_checks(checks)
    if options.json:
        answer(json.dumps([check.to_json() for check in done], indent=1))
    return EXIT_DONE if all(check.ok for check in done) else EXIT_ENVIRONMENT


def sync(options: Namespace) -> int:
    from orchestrator.execution.sync import recorded_spec, sync_sweep, sync_sweeps_left_behind

    storage = storage_from(options)
    folder = open_sweep(storage, options.name)
    warn_of_unused_environment(recorded_spec(folder, options.tracking_uri))
    facts = sync_sweep(folder, options.tracking_uri)
    sync_sweeps_left_behind(storage, notify)
    if options.json:
        answer(json.dumps(facts))
    else:
        notify(f"MLflow at {facts['uri']} shows {facts['runs']} runs of {options.name}")
    return EXIT_DONE
