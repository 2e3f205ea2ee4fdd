"""What the sweeps of a storage use: the keys in their records, and whether they may come to use more."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.state.driver_liveness import driver_alive
from orchestrator.state.sweep_folder import DELETING, RENAMED, SweepFolder
from orchestrator.state.used_keys import KEY_FILES, named_keys
from orchestrator.storage.base import Storage

BEGUN_FILES = (DELETING, RENAMED)  # of one that is being deleted or renamed


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepUse:
    """What one sweep uses.

    Attributes:
        named: keys of trials and warm-ups in its records, as its own or in a setting such as `random.layers`.
        sharers: key of a shared warm-up -> its trials.
        running: it has a driver.
        grows: why further trials may join it, in words; empty if none will.
        unknown: why it is not known what it uses, in words; empty if it is.
    """

    name: str
    named: frozenset[str]
    sharers: dict[str, frozenset[str]]
    running: bool = False
    grows: str = ""
    unknown: str = ""


def sweep_uses(storage: Storage) -> list[SweepUse]:
    """What each sweep uses, those that are half deleted or renamed included.

    Raises:
        SetupError: a sweep is about to begin, or its records are being changed.
    """
    return [_use(SweepFolder(storage, name)) for name in storage.names("sweeps")]


def _use(folder: SweepFolder) -> SweepUse:
    named = named_keys(folder, KEY_FILES + BEGUN_FILES)
    holder, state = folder.lease_holder(), folder.read_state()
    running = state is not None and driver_alive(state.driver)
    if holder and not running:
        message = f"sweep {folder.name!r} is starting, or being changed, by {holder}"
        raise SetupError(message, "try again in a moment", code="sweep-running")
    if not folder.exists():
        return SweepUse(name=folder.name, named=named, sharers={}, running=running)
    record = folder.storage.read_json(folder.file("trials.json"), fields=("trials",))
    if record is None:
        unknown = f"{folder.file('trials.json')} is damaged, and `{command('resume', folder.name)}` writes it again"
        return SweepUse(name=folder.name, named=named, sharers={}, running=running, unknown=unknown)
    sharers: dict[str, set[str]] = {}
    for trial in record["trials"]:
        if trial.get("warmup_key"):
            sharers.setdefault(trial["warmup_key"], set()).add(trial["key"])
    grows = ""
    if state is None:
        grows = "has no state that can be read"
    elif not state.settled:
        grows = "is a search that has not ended"
    return SweepUse(
        name=folder.name,
        named=named,
        sharers={key: frozenset(trials) for key, trials in sharers.items()},
        running=running,
        grows=grows,
    )
