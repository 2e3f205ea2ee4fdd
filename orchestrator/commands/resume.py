"""The command that continues a sweep."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.commands.changed_files import settle_changes
from orchestrator.commands.options import notify, spec_of, storage_from, warn_of_unused_environment
from orchestrator.commands.run import already_finished, is_complete, print_outcome
from orchestrator.errors import EXIT_DONE, UserError
from orchestrator.process.output import answer
from orchestrator.state.sweep_folder import open_sweep, require_known_trials
from orchestrator.state.sweep_state import SweepState

if TYPE_CHECKING:
    from orchestrator.planning.beginnings import Beginning, LastStates
    from orchestrator.planning.plan import Plan

FAILED, UNFINISHED = "failed", "unfinished"  # values of --only


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What `resume` runs.

    Attributes:
        keys: of the trials.
        again: those of them that start again, with their records archived.
    """

    keys: frozenset[str]
    again: frozenset[str]


def resume(options: Namespace) -> int:
    from orchestrator.execution.events import EventFile
    from orchestrator.execution.sweep import RunOptions, run_sweep
    from orchestrator.planning.beginnings import LastStates, beginnings
    from orchestrator.search.changed_settings import with_settings
    from orchestrator.search.plans import plan_sweep
    from orchestrator.terminal.resume_table import print_beginnings

    storage = storage_from(options)
    folder = open_sweep(storage, options.name)
    events = EventFile(options.events, options.name)
    folder.require_no_driver()
    spec = with_settings(spec_of(folder), options.set)
    warn_of_unused_environment(spec)
    planned, changes = settle_changes(plan_sweep(spec, storage, hash_data=True), storage, options)
    if options.continue_stopped:
        planned = replace(planned.without_results(planned.stopped), stopped={})
    state = folder.read_state() or SweepState(sweep=options.name)
    last = LastStates(storage=storage, state=state, earlier=changes.earlier)
    chosen = _selected(planned, last, options)
    rows = beginnings(
        planned.without_results(chosen.again),
        last,
        chosen.keys,
        from_scratch=options.from_scratch or options.recompute,
        storage=storage,
    )
    facts = _facts(planned, last, chosen, rows)
    _print_counts(facts)
    if chosen.keys:
        print_beginnings(rows)
    if options.dry_run:
        if options.json:
            answer(json.dumps(facts, indent=1))
        return EXIT_DONE
    if not chosen.keys and planned.settled:
        if is_complete(folder, planned):
            return already_finished(folder, options, events)
        if planned.unfinished:
            notify("nothing to resume")
            if options.json and state.trials:
                answer(json.dumps(state.to_status(), indent=1))
            return EXIT_DONE
    text = (storage.read(folder.file("sweep.yaml")) or b"").decode()
    run = RunOptions(
        selected=lambda key: key in chosen.keys,
        from_scratch=chosen.again,
        decide_anew=options.recompute and bool(changes.files) and spec.is_search,
        address=options.address,
        quiet=options.quiet,
        is_resumed=True,
        events=events,
    )
    return print_outcome(folder, options, run_sweep(planned, text, storage, run))


def _selected(planned: Plan, last: LastStates, options: Namespace) -> Selection:
    """The trials that the options choose.

    Raises:
        UserError: a trial is not one of the sweep, or options contradict each other.
    """
    if options.kind and options.only == UNFINISHED:
        raise UserError(
            "--kind: must not go with --only unfinished, which failed trials are not",
            "leave one of them out",
            code="option-invalid",
        )
    finished = {one.key for one in planned.trials if one.result is not None} if options.recompute else set()
    keys = {one.key for one in planned.unfinished} | finished
    if options.only or options.kind:
        failed = {key for key in keys if last.has_failed(key)}
        keys = keys - failed if options.only == UNFINISHED else failed
    if options.kind:
        keys = {key for key in keys if last.kind(key) in options.kind}
    if options.trial:
        known = {one.key: one.key for one in planned.trials} | {one.key: key for key, one in last.earlier.items()}
        require_known_trials(options.name, sorted(options.trial), known)
        keys &= {known[key] for key in options.trial}
    return Selection(keys=frozenset(keys), again=frozenset(keys) if options.from_scratch else frozenset(keys & finished))


def _facts(planned: Plan, last: LastStates, chosen: Selection, rows: list[Beginning]) -> dict[str, Any]:
    """The answer of --dry-run: how many trials are kept, run and not selected, and how each trial begins."""
    from orchestrator.planning.beginnings import Start

    failed = {key for key in chosen.keys if last.has_failed(key)}
    return {
        "finished": sum(one.start is Start.KEPT for one in rows),
        "stopped_early": len(planned.stopped),
        "failed": len(failed),
        "unfinished": len(chosen.keys - failed),
        "from_checkpoint": sum(one.start is Start.CHECKPOINT for one in rows),
        "left_alone": sum(one.start is Start.NOT_SELECTED for one in rows),
        "trials": sorted(chosen.keys),
        "beginnings": [one.to_json() for one in rows],
    }


def _print_counts(facts: dict[str, Any]) -> None:
    stopped = f"{facts['stopped_early']} stopped early and kept so, " if facts["stopped_early"] else ""
    notify(
        f"{facts['finished']} finished and kept, {stopped}"
        f"{facts['failed']} failed and {facts['unfinished']} unfinished to run, "
        f"{facts['from_checkpoint']} of them from a checkpoint, {facts['left_alone']} not selected"
    )
