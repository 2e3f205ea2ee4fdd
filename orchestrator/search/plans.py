"""The plan of a sweep that may be a search: its trials are those that the search has begun, and the dense baselines.

The rest of this folder is imported for searches alone.
"""

from __future__ import annotations

from typing import Any

from orchestrator.planning.plan import Plan, make_plan, recorded_plan
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage


def plan_sweep(spec: SweepSpec, storage: Storage, *, hash_data: bool = False, decide_anew: bool = False) -> Plan:
    """What `run` would do; see `make_plan`.

    Args:
        decide_anew: as if a search had decided nothing yet.
    """
    record = storage.read_json(SweepFolder(storage, spec.name).file("trials.json"), fields=("trials", "data_digest"))
    if not spec.is_search:
        return make_plan(spec, storage, hash_data=hash_data, record=record)
    from orchestrator.search.decided_trials import decided_trials, with_course
    from orchestrator.search.decision_file import DecisionFile
    from orchestrator.search.settings import SearchSettings

    decisions = [] if decide_anew else DecisionFile(storage, spec.name).read()
    SearchSettings.of(spec).require_same_course(decisions)
    plan = make_plan(spec, storage, hash_data=hash_data, decided=decided_trials(spec, decisions), record=record)
    return with_course(plan, decisions)


def plan_from_record(spec: SweepSpec, storage: Storage, record: dict[str, Any]) -> Plan:
    """The plan of a sweep from its files; see `recorded_plan`."""
    if not spec.is_search:
        return recorded_plan(spec, storage, record)
    from orchestrator.search.decided_trials import decided_trials, with_course
    from orchestrator.search.decision_file import DecisionFile

    decisions = DecisionFile(storage, spec.name).read()
    return with_course(recorded_plan(spec, storage, record, decided_trials(spec, decisions)), decisions)
