"""What a driver that died has left of a sweep: a state that is not true any more, its lease, requests to stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from orchestrator.errors import SweepError
from orchestrator.execution.driver import initial_state
from orchestrator.execution.sync import plan_of
from orchestrator.planning.plan import Plan
from orchestrator.repair.mismatch import Mismatch, Scope, sweep_file_to_move
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.state.driver_lease import HOLDER_FIELDS
from orchestrator.state.driver_liveness import driver_alive
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus, state_from_bytes
from orchestrator.storage.layout import set_aside
from trainables.wording import counted

STATE, LEASE = "state.json", "driver.json"


def stale_states(scope: Scope) -> Iterator[Mismatch]:
    """States of sweeps without a driver that are missing, damaged, or not what the records say."""
    for folder in scope.sweeps():
        content = folder.storage.read(folder.file(STATE))
        state = None if content is None else state_from_bytes(content)
        plan = known_plan(folder)
        if plan is None:
            continue  # another mismatch says why
        if state is None:
            problem = "is missing" if content is None else "is damaged"
        else:
            problem = _problem(state, plan)
        if problem:
            yield Mismatch(
                kind="stale state",
                place=f"{folder.file(STATE)} {problem}",
                remedy="makes it agree with the records",
                mend=partial(_correct, folder),
                sweeps=frozenset({folder.name}),
            )


def known_plan(folder: SweepFolder) -> Plan | None:
    """The plan from the sweep's files; None if they are damaged, or by code with other numerics."""
    try:
        return plan_of(folder)
    except (SweepError, TypeError, KeyError):
        return None


def _problem(state: SweepState, plan: Plan) -> str:
    """What is not true in a state without a driver; empty if that is nothing."""
    if state.driver:
        return f"says that process {state.driver.get('pid')} on {state.driver.get('host')} runs the sweep, which is gone"
    if state.trials.keys() != {trial.key for trial in plan.trials}:
        return "has other trials than trials.json"
    corrected = _corrected(state, plan)
    trials = {key: one for key, one in state.trials.items() if key not in plan.damage}  # which another mismatch names
    wrong = [one.name for key, one in trials.items() if one != corrected.trials[key]]
    wrong += [one.name for key, one in state.warmups.items() if one != corrected.warmups[key]]
    return f"differs from the records in {counted(len(wrong), 'stage')}, such as {wrong[0]}" if wrong else ""


def _corrected(state: SweepState, plan: Plan) -> SweepState:
    """The state with what the records say; what ran is waiting again."""
    trials = dict(state.trials)
    for trial in plan.trials:
        one = trials[trial.key]
        if trial.result is not None:
            metrics, digest = trial.result["metrics"], trial.result["model_sha256"]
            known = one if one.state == "finished" else replace(one, state="finished", error=None, rung=None)
            trials[trial.key] = replace(known, metrics=metrics, model_sha256=digest)
        elif one.state in ("finished", "running"):
            trials[trial.key] = _waiting(one)
    warmups = {key: replace(one, state="waiting") if one.state == "running" else one for key, one in state.warmups.items()}
    return replace(state, trials=trials, warmups=warmups, driver={})


def _waiting(one: TrialStatus) -> TrialStatus:
    kept = {} if one.state == "finished" else one.metrics
    return replace(one, state="waiting", metrics=kept, model_sha256=None, started=None)


def _correct(folder: SweepFolder) -> None:
    content, plan = folder.storage.read(folder.file(STATE)), plan_of(folder)
    state = None if content is None else state_from_bytes(content)
    if content is not None and state is None:
        set_aside(folder.storage, folder.file(STATE))
    if state is None or state.trials.keys() != {trial.key for trial in plan.trials}:
        state = initial_state(plan, state, StageQueue(warmups={}, trials={}))
    folder.write_state(_corrected(state, plan))


def stale_leases(scope: Scope) -> Iterator[Mismatch]:
    """Leases of drivers that died; another driver takes them over, so they are harmless, but not true."""
    for name in scope.storage.names("sweeps"):
        folder = SweepFolder(scope.storage, name)
        if name in scope.running or not scope.storage.exists(folder.file(LEASE)):
            continue
        holder = scope.storage.read_json(folder.file(LEASE), fields=HOLDER_FIELDS)
        if holder is None or not driver_alive(holder):
            who = f"process {holder['pid']} on {holder['host']}, which is gone" if holder else "nobody: it is damaged"
            yield sweep_file_to_move(folder, LEASE, "stale lease", f" is that of {who}")


def stale_stop_requests(scope: Scope) -> Iterator[Mismatch]:
    """Requests to stop a sweep that does not run."""
    for folder in scope.sweeps():
        for name in scope.storage.names(f"sweeps/{folder.name}"):
            if name == "stop" or name.startswith("stop-"):
                yield sweep_file_to_move(folder, name, "stale stop request")
