"""Changes of a sweep file's keys that decide no number, for a sweep that has begun.

What a key decides is not listed but looked at: with and without the change the trials, the course of the search, what is
recommended and what trials compute with must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.errors import UserError
from orchestrator.planning.resolved_settings import merge_settings
from orchestrator.search.settings import SearchSettings
from orchestrator.spec.grid import representative_trials
from orchestrator.spec.loader import with_options
from orchestrator.spec.schema import SweepSpec

MEASURED = {"precision": "fp32", "cpus_per_trial": 1.0, "gpus_per_trial": 1.0, "compile": True}  # as if it were


def with_settings(spec: SweepSpec, overrides: Sequence[str]) -> SweepSpec:
    """The sweep with options KEY=VALUE that decide no number.

    Raises:
        UserError: a value is invalid, or a key decides something; the message says what.
    """
    for override in overrides:
        changed = with_options(spec, [override])
        if decided := next(_differences(spec, changed), ""):
            raise UserError(
                f"--set {override}: {override.partition('=')[0]} decides {decided}, and must stay as it was in a sweep that "
                "has begun",
                "run the sweep file with it and another --name; finished trials of the storage are reused",
                code="setting-decides",
            )
        spec = changed
    return spec


def _differences(before: SweepSpec, after: SweepSpec) -> Iterator[str]:
    """What differs between two specifications besides settings that decide nothing."""
    if (before.name, before.storage) != (after.name, after.storage):
        yield "which sweep this is"
    if representative_trials(before) != representative_trials(after):
        yield "the trials"
    if before.objective != after.objective:
        yield "what is recommended"
    if before.is_search != after.is_search or (before.is_search and SearchSettings.of(before) != SearchSettings.of(after)):
        yield "the course of the search"
    if _runtimes(before) != _runtimes(after):
        yield "the fingerprint under which trials run"


def _runtimes(spec: SweepSpec) -> list[object]:
    """What trials compute with, on each device that may be meant."""
    device = spec.resources.required_device
    devices = ["cpu", "cuda"] if device == "auto" else [device]
    return [merge_settings(spec.resources, MEASURED | {"device": device}).runtime(spec.resources) for device in devices]
