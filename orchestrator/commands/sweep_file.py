"""The commands that take a sweep file and run no sweep: init, schema, plan, trial."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.command_line import command
from orchestrator.commands.changed_files import note_changes
from orchestrator.commands.options import notify, spec_from
from orchestrator.errors import EXIT_DONE, UserError
from orchestrator.process.output import answer
from orchestrator.storage.factory import open_storage

if TYPE_CHECKING:
    from orchestrator.planning.plan import Plan
    from orchestrator.storage.base import Storage
    from orchestrator.terminal.plan import Measured


def init(options: Namespace) -> int:
    path = Path(options.path)
    if path.exists():
        raise UserError(f"{path} exists", "give another name, or remove it first", code="file-exists")
    from orchestrator.spec.presets import preset_text, template

    path.write_text(preset_text(options.preset) if options.preset else template())
    notify(f"wrote {path}; `{command('plan', str(path))}` shows what it would run")
    return EXIT_DONE


def schema(options: Namespace) -> int:
    from orchestrator.spec.json_schema import json_schema

    answer(json.dumps(json_schema(), indent=1))
    return EXIT_DONE


def plan(options: Namespace) -> int:
    from orchestrator.planning.given_speed import at_speed, parsed_speed
    from orchestrator.planning.price import parsed_price
    from orchestrator.planning.room import require_room
    from orchestrator.search.plans import plan_sweep
    from orchestrator.terminal.plan import plan_facts, print_plan
    from orchestrator.tracking.target import tracking_target

    if options.measure and options.images_per_second is not None:
        raise UserError(
            f"--images-per-second: must be given without --measure, got {options.images_per_second!r} and --measure",
            "leave one of them out",
            code="option-invalid",
        )
    spec = spec_from(options)
    storage = open_storage(spec.storage)
    tracking_target(spec, storage)
    price = None if options.price_per_hour is None else parsed_price(options.price_per_hour)
    speed = None if options.images_per_second is None else parsed_speed(options.images_per_second)
    planned = plan_sweep(spec, storage, hash_data=options.hash or options.measure)
    note_changes(planned, storage)
    measured = _measured(planned, storage) if options.measure else None
    given = None if speed is None else at_speed(planned.checked, speed)
    facts = plan_facts(planned, storage, measured, price, given)
    if options.json:
        answer(json.dumps(facts, indent=1))
    else:
        print_plan(planned, facts)
    require_room(planned, storage)
    return EXIT_DONE


def _measured(planned: Plan, storage: Storage) -> Measured:
    from orchestrator.execution.measuring import measure
    from orchestrator.state.sweep_folder import SweepFolder
    from orchestrator.terminal.plan import Measured

    found = measure(planned.checked, SweepFolder(storage, planned.spec.name))
    return Measured(timed=found.timed, device=found.device, where=found.where)


def trial(options: Namespace) -> int:
    from orchestrator.execution.single_trial import run_one

    return run_one(options, spec_from)
