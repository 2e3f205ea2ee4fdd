"""What commands do when files of the user's have changed since the sweep's last run: say so, and do as asked."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from typing import TYPE_CHECKING

from orchestrator.command_line import JOBS_API_VARIABLE, command
from orchestrator.commands.options import notify
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.planning.changed_files import Changes
    from orchestrator.planning.plan import Plan
    from orchestrator.storage.base import Storage


def settle_changes(plan: Plan, storage: Storage, options: Namespace) -> tuple[Plan, Changes]:
    """The plan as the options of `run` or `resume` want it, and what has changed; with --recompute nothing earlier stays.

    Raises:
        UserError: trials were finished with an earlier file, and the options do not say what becomes of them; or they name a
            file that has not changed.
    """
    from orchestrator.planning.changed_files import accept_changes, changes_since_last_run, chosen_files
    from orchestrator.search.plans import plan_sweep

    changes = changes_since_last_run(plan, storage)
    if options.accept_changed and options.recompute:
        raise UserError("--accept-changed: must not go with --recompute", "leave one of them out", code="option-invalid")
    chosen = chosen_files(plan, changes, options.accept_changed or ())
    if options.recompute:
        if changes.files:
            notify(f"{changes.sentence(plan)}; all are computed anew")
        if changes.files and plan.spec.is_search:  # whose decisions follow from the earlier results
            plan = plan_sweep(plan.spec, storage, hash_data=True, decide_anew=True)
        return plan.without_earlier_files(storage), changes
    if any(file.trials and file.name not in chosen for file in changes.files):
        raise UserError(changes.sentence(plan), _ways_out(changes, options), code="file-changed")
    if changes.files:
        notify(f"{changes.sentence(plan)}{'; they stay' if changes.finished else ''}")
    return accept_changes(plan, changes, storage, int(time.time() * 1000)) if changes.finished else plan, changes


def note_changes(plan: Plan, storage: Storage) -> None:
    """Says what `run` would refuse to decide."""
    from orchestrator.planning.changed_files import changes_since_last_run

    changes = changes_since_last_run(plan, storage)
    if changes.finished:
        notify(f"{changes.sentence(plan)}; `run` takes --accept-changed FILE to keep them, or --recompute")


def _ways_out(changes: Changes, options: Namespace) -> str:
    """The two commands that decide, as they are to be typed."""
    files = [file for file in changes.files if file.trials]
    words = [word for file in files for word in ("--accept-changed", file.name)]
    name, settings = "run", []
    if options.command == "resume" or JOBS_API_VARIABLE in os.environ:  # a job's sweep file is not where the user is
        name, settings = "resume", [word for setting in options.set for word in ("--set", setting)]
    keep, anew = (command(name, *way, *settings) for way in (words, ["--recompute"]))
    if not all(file.can_be_accepted for file in files):
        return f"`{anew}` computes all of them anew"
    return f"`{keep}` keeps them and runs the others with the changed file, `{anew}` computes all of them anew"
