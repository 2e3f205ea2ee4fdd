"""Which trials and warm-ups a sweep uses: keys that its records name, as its own or in a setting such as `random.layers`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.state.sweep_folder import DELETING, SweepFolder
from orchestrator.storage.base import Storage

KEY = re.compile(rb"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")
KEY_FILES = ("spec.json", "trials.json", "state.json", "decisions.jsonl")  # of a sweep: they name the keys that it uses


def named_keys(folder: SweepFolder, files: tuple[str, ...] = KEY_FILES) -> frozenset[str]:
    """The keys in these files of a sweep, those of damaged files included."""
    contents = folder.storage.read_all([folder.file(file) for file in files])
    return frozenset(key.decode() for content in contents for key in KEY.findall(content or b""))


def held_sweeps(storage: Storage) -> dict[str, str]:
    """Name -> who holds it, in words, of each sweep that runs, on any host, or that a command is at work on."""
    folders = [SweepFolder(storage, name) for name in storage.names("sweeps")]
    holders = {one.name: one.live_driver() or one.lease_holder() for one in folders}  # some locks hold on their host only
    return {name: holder for name, holder in holders.items() if holder}


def require_not_in_use(storage: Storage, keys: Collection[str], besides: str = "") -> None:
    """Raises SetupError if a sweep that runs uses one of these trials: it would lose its attempt or its result to the caller.

    Args:
        besides: name of the caller's own sweep.
    """
    if not keys:
        return
    for name, holder in held_sweeps(storage).items():
        shared = sorted(named_keys(SweepFolder(storage, name)).intersection(keys))
        if shared and name != besides:
            raise SetupError(
                f"trial {shared[0]} is one of sweep {name!r}, which is being run by {holder}",
                f"wait for it, or end it: `{command('stop', name)}`",
                code="sweep-running",
            )


def require_not_being_deleted(folder: SweepFolder, keys: Iterable[str]) -> None:
    """Raises SetupError if a deletion of another sweep is about to remove trials or warm-ups with these keys.

    The caller holds the lease of `folder`. A deletion writes down what it removes, and only then looks who holds a lease, so
    that of a deletion and a sweep that start at the same moment at least one sees the other.
    """
    storage, wanted = folder.storage, set(keys)
    for name in storage.names("sweeps"):
        other = SweepFolder(storage, name)
        if name == folder.name or not storage.exists(other.file(DELETING)) or not other.lease_holder():
            continue
        begun = storage.read_json(other.file(DELETING), fields=("trials", "warmups")) or {"trials": [], "warmups": []}
        if wanted & {*begun["trials"], *begun["warmups"]}:
            raise SetupError(
                f"sweep {name!r} is being deleted, and it shares trials with sweep {folder.name!r}",
                "try again when it is gone",
                code="sweep-running",
            )
