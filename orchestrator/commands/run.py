"""The commands that run a sweep, or stop it.

Each takes the parsed options and returns the exit code. Ray and MLflow are imported only if there is something to do.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from typing import TYPE_CHECKING

from orchestrator.command_line import command
from orchestrator.commands.changed_files import settle_changes
from orchestrator.commands.options import (
    follow_moved_storage,
    notify,
    spec_from,
    spec_of,
    storage_from,
    warn_of_unused_environment,
)
from orchestrator.errors import EXIT_DONE, EXIT_TRIALS_FAILED, SetupError
from orchestrator.process.output import answer
from orchestrator.state.driver_liveness import driver_alive
from orchestrator.state.sweep_folder import SweepFolder, open_sweep, require_known_trials
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.factory import open_storage
from orchestrator.uris import redacted

STOP_TIMEOUT_S = 60.0
STOP_POLL_INTERVAL_S = 0.3

if TYPE_CHECKING:
    from orchestrator.execution.events import EventFile
    from orchestrator.planning.plan import Plan


def run(options: Namespace) -> int:
    from orchestrator.execution.events import EventFile
    from orchestrator.search.plans import plan_sweep
    from orchestrator.spec.presets import sweep_text
    from orchestrator.tracking.target import tracking_target

    spec = spec_from(options)
    events = EventFile(options.events, spec.name)
    storage = open_storage(spec.storage)
    tracking_target(spec, storage)  # before anything is read that takes time
    warn_of_unused_environment(spec)
    planned, changes = settle_changes(plan_sweep(spec, storage, hash_data=True), storage, options)
    folder = SweepFolder(storage, spec.name)
    again = frozenset(trial.key for trial in planned.trials if trial.result is not None) if options.recompute else frozenset()
    if not again and is_complete(folder, planned):
        return already_finished(folder, options, events)
    from orchestrator.planning.kept_weights import require_kept_weights

    require_kept_weights(planned.checked)
    from orchestrator.execution.sweep import RunOptions, run_sweep

    storage = open_storage(spec.storage, create=True)
    chosen = RunOptions(
        from_scratch=again,
        decide_anew=options.recompute and bool(changes.files) and spec.is_search,
        address=options.address,
        quiet=options.quiet,
        events=events,
    )
    code = run_sweep(planned, sweep_text(options.file), storage, chosen)
    return print_outcome(folder, options, code)


def stop(options: Namespace) -> int:
    folder = open_sweep(storage_from(options), options.name)
    state = folder.read_state()
    if state is None or not driver_alive(state.driver):
        notify(f"sweep {options.name!r} is not running")
        return EXIT_DONE
    if options.trial:
        require_known_trials(options.name, [options.trial], state.trials)
        if state.trials[options.trial].state not in ("running", "waiting"):
            notify(f"trial {options.trial} is not running: it is {state.trials[options.trial].state}")
            return EXIT_DONE
    folder.request_stop(options.trial)
    if options.trial:
        notify(f"asked trial {options.trial} to stop; it writes a checkpoint at its next boundary")
        return EXIT_DONE
    notify("asked the sweep to stop; waiting for its checkpoints")
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        state = folder.read_state()
        if state is None or not driver_alive(state.driver):
            notify(f"stopped; `{command('resume', options.name)}` continues it")
            return EXIT_DONE
        time.sleep(STOP_POLL_INTERVAL_S)
    driver = state.driver if state else "unknown"
    raise SetupError(
        f"sweep {options.name!r} has not stopped within {STOP_TIMEOUT_S:.0f} s", f"its driver is {driver}", code="stop-timeout"
    )


def is_complete(folder: SweepFolder, planned: Plan) -> bool:
    """Whether the sweep's files show that all trials of this plan are finished and tracked."""
    from orchestrator.execution.sync import is_in_present_database
    from orchestrator.state.trial_results import damaged_files

    record = folder.storage.read_json(folder.file("trials.json"), fields=("trials",))
    spec = folder.storage.read_json(folder.file("spec.json"), fields=("tracking",))
    state = folder.read_state()
    if (
        record is None
        or state is None
        or planned.unfinished
        or not planned.settled
        or state.tracking_pending
        or driver_alive(state.driver)
    ):
        return False
    if damaged_files(folder.storage, {one.key: one.result for one in planned.trials if one.result is not None}):
        return False
    if spec is None or spec["tracking"] != planned.spec.tracking.model_dump():
        return False
    if not is_in_present_database(planned.spec, folder.storage, state):
        return False
    same = [(one["key"], one["name"]) for one in record["trials"]] == [(one.key, one.name) for one in planned.trials]
    return same and state.is_complete and all(status.mlflow_run_id for status in state.trials.values())


def already_finished(folder: SweepFolder, options: Namespace, events: EventFile) -> int:
    state = folder.read_state()
    counts = state.counts() if state else {}
    events.write("sweep_started", **counts)
    events.write("sweep_finished", exit_code=EXIT_DONE, seconds=0.0, **counts)
    follow_moved_storage(folder.storage)
    notify(f"sweep {folder.name!r} is finished; nothing to do")
    return print_outcome(folder, options, EXIT_DONE)


def print_outcome(folder: SweepFolder, options: Namespace, code: int) -> int:
    """Prints the end of `run` and `resume`: the results, failed trials with their errors, how to continue."""
    from orchestrator.execution.sync import sync_sweeps_left_behind
    from orchestrator.reporting.report import make_report
    from orchestrator.terminal.pause import pause_lines
    from orchestrator.terminal.status import print_failures

    state = folder.read_state()
    assert state is not None
    if not state.tracking_pending and code in (EXIT_DONE, EXIT_TRIALS_FAILED):
        sync_sweeps_left_behind(folder.storage, notify)
    if options.json:
        answer(json.dumps(state.to_status(), indent=1))
        return code
    waiting = state.counts()["waiting"] + state.counts()["stopped"] - state.stopped_early
    if code == EXIT_DONE and waiting:
        notify(f"{waiting} trials were not selected; `{command('resume', folder.name)}` runs them")
    if code in (EXIT_DONE, EXIT_TRIALS_FAILED) and state.counts()["finished"]:
        make_report(folder, state).print()
    print_failures(state)
    if code == EXIT_DONE:
        notify(f"MLflow UI: {_link_on_server(folder, state) or command('ui', folder.name)}")
    elif state.pause:
        for line in pause_lines(state):
            notify(line)
    elif not state.is_complete:
        notify(f"to continue: {command('resume', folder.name)}")
    return code


def _link_on_server(folder: SweepFolder, state: SweepState) -> str:
    """The link to the sweep's run on a tracking server; empty without one."""
    from orchestrator.tracking.client import is_server
    from orchestrator.tracking.links import run_url

    uri = spec_of(folder).tracking.uri
    if uri is None or not is_server(uri) or not state.experiment_id or not state.parent_run_id:
        return ""
    return run_url(redacted(uri), state.experiment_id, state.parent_run_id)
