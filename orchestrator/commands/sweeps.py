"""The commands that look after the sweeps of a storage: list, rename, delete, gc."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from orchestrator.command_line import command
from orchestrator.commands.options import follow_moved_storage, notify, spec_of, storage_from
from orchestrator.errors import EXIT_DONE, SweepError, UserError
from orchestrator.process.output import answer
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.uris import redacted
from trainables.wording import counted, size_text

if TYPE_CHECKING:
    from orchestrator.housekeeping.deletion import Deletion

PLAIN_WIDTH = 200  # columns of a table in a file or pipe


def list_sweeps(options: Namespace) -> int:
    """The sweeps of a storage, the last changed first."""
    from orchestrator.housekeeping.listing import sweep_summaries

    if options.address:
        raise UserError(
            "--address: must not go with --storage: one lists the jobs of a cluster, the other the sweeps of a storage",
            "leave one of them out",
            code="option-invalid",
        )
    storage = storage_from(options)
    sweeps = sweep_summaries(storage)
    if options.json:
        answer(json.dumps([asdict(one) for one in sweeps], indent=1))
        return EXIT_DONE
    if not sweeps:
        notify(f"no sweeps in storage {storage.root} (another storage: --storage)")
        return EXIT_DONE
    from orchestrator.terminal.tables import plain_table, stdout_console

    table = plain_table("sweep", "state", no_wrap=True, numbers=("finished", "failed", "stopped early"))
    table.add_column("last change")
    for one in sweeps:
        more = "" if one.settled or one.state == "unknown" else " so far"
        table.add_row(
            one.name,
            one.state,
            f"{one.finished} of {one.total}{more}",
            str(one.failed or ""),
            str(one.stopped_early or ""),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.changed)),
        )
    stdout_console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)
    for one in sweeps:
        if one.state == "half deleted":
            notify(f"the deletion of {one.name} was interrupted; `{command('delete', one.name)}` removes the rest")
    return EXIT_DONE


def rename(options: Namespace) -> int:
    """Renames a sweep, and its runs in MLflow as far as that can be reached."""
    from orchestrator.housekeeping.renaming import rename_sweep, require_new_name

    storage = storage_from(options)
    require_new_name(storage, options.name, options.new)
    tracked = _require_free_in_mlflow(SweepFolder(storage, options.name), options.new)
    folder = rename_sweep(storage, options.name, options.new)
    notify(f"sweep {options.name!r} is {folder.name!r} now; trials and their keys stay")
    problem = _rename_in_mlflow(folder) if tracked else ""
    if problem:
        notify(f"MLflow shows the former name still: {problem}; `{command('sync', folder.name)}` brings it up to date")
    notify(f"a sweep file with `name: {options.name}` begins a new sweep; write `name: {folder.name}` there, or give --name")
    if options.json:
        answer(json.dumps({"sweep": folder.name, "former": options.name, "mlflow_pending": bool(problem)}))
    return EXIT_DONE


def _require_free_in_mlflow(folder: SweepFolder, new: str) -> bool:
    """Whether the sweep has runs in MLflow. One that cannot be reached now refuses nothing.

    Raises:
        SetupError: MLflow has runs of another sweep with the new name.
    """
    if not folder.exists():  # an interrupted renaming, which `sync` follows
        return True
    state = folder.read_state()
    if state is None or not state.parent_run_id:
        return state is None
    from orchestrator.tracking.renamed_runs import require_free_in_mlflow
    from orchestrator.tracking.target import tracking_target

    follow_moved_storage(folder.storage)
    try:
        require_free_in_mlflow(tracking_target(spec_of(folder), folder.storage), state.parent_run_id, new)
    except SweepError as error:
        if error.code == "sweep-name-taken":
            raise
    return True


def _rename_in_mlflow(folder: SweepFolder) -> str:
    """Why MLflow could not be brought up to date; empty if it was."""
    from orchestrator.execution.sync import sync_sweep

    try:
        sync_sweep(folder)
    except SweepError as error:
        return str(error)
    return ""


def delete(options: Namespace) -> int:
    """Deletes a sweep after it has shown what goes, and was confirmed."""
    from orchestrator.housekeeping.deletion import delete_sweep, plan_deletion

    storage = storage_from(options)
    plan = plan_deletion(storage, options.name)
    SweepFolder(storage, options.name).require_no_driver()
    mlflow = _kept_in_mlflow(storage, options.name)
    for line in _lines(plan, mlflow):
        notify(line)
    if not options.dry_run:
        _require_consent(options, f"delete {options.name}", "Delete these files?")
        plan = delete_sweep(storage, options.name)
        notify(f"deleted sweep {options.name!r}")
    if options.json:
        answer(json.dumps(_facts(plan, mlflow, done=not options.dry_run), indent=1))
    return EXIT_DONE


def collect_garbage(options: Namespace) -> int:
    """Frees what no sweep needs any more, after it has shown that, and was confirmed."""
    from orchestrator.housekeeping.garbage import Options, find_garbage, free_garbage

    storage = storage_from(options)
    chosen = Options(archives=options.archives, unused_trials=options.unused_trials)
    garbage = find_garbage(storage, chosen)
    sizes = garbage.sizes()
    for line in _size_lines(sizes):
        notify(line)
    for reason in garbage.kept:
        notify(f"kept {reason}")
    done = not options.dry_run and bool(sizes)
    if done:
        _require_consent(options, "gc", "Free them?")
        garbage = free_garbage(storage, chosen)
        sizes = garbage.sizes()
        notify(f"freed {size_text(sum(size for _, size in sizes.values()))}")
    elif not sizes:
        notify(f"storage {storage.root}: every file is needed")
    if options.json:
        kinds = {kind: {"files": files, "bytes": size} for kind, (files, size) in sizes.items()}
        answer(json.dumps({"freed": done, "kinds": kinds, "kept": list(garbage.kept)}, indent=1))
    return EXIT_DONE


def _require_consent(options: Namespace, what: str, question: str) -> None:
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise UserError(
            f"{what}: must be confirmed, and there is no terminal to ask at",
            "give --yes, or --dry-run to see what would go",
            code="not-confirmed",
        )
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was deleted", code="not-confirmed")


def _lines(plan: Deletion, mlflow: str) -> list[str]:
    """What goes and what stays, for people."""
    lines = [f"sweep {plan.sweep!r}:", *_size_lines(plan.sizes())]
    kept = [counted(len(plan.kept_trials), "trial")] if plan.kept_trials else []
    kept += [counted(len(plan.kept_warmups), "shared warm-up")] if plan.kept_warmups else []
    if kept:
        lines.append(f"kept, since other sweeps use them: {' and '.join(kept)}")
    return lines + ([f"kept: {mlflow}; they can be deleted there"] if mlflow else [])


def _size_lines(sizes: Mapping[str, tuple[int, int]]) -> list[str]:
    """A line for each kind of files, and one for all together; none without files."""
    width = max(map(len, sizes), default=0)
    lines = [f"  {kind:{width}}  {size_text(size):>10} in {counted(files, 'file')}" for kind, (files, size) in sizes.items()]
    together = f"  {'together':{width}}  {size_text(sum(size for _, size in sizes.values())):>10}"
    return [*lines, together] if lines else []


def _facts(plan: Deletion, mlflow: str, *, done: bool) -> dict[str, object]:
    return {
        "sweep": plan.sweep,
        "deleted": done,
        "kinds": {kind: {"files": files, "bytes": size} for kind, (files, size) in plan.sizes().items()},
        "trials": sorted(plan.trials),
        "warmups": sorted(plan.warmups),
        "kept_trials": sorted(plan.kept_trials),
        "kept_warmups": sorted(plan.kept_warmups),
        "kept_in_mlflow": mlflow or None,
    }


def _kept_in_mlflow(storage: Storage, name: str) -> str:
    """What MLflow keeps of a sweep, in words; empty if that is nothing, or not known."""
    from orchestrator.tracking.target import tracking_target

    folder = SweepFolder(storage, name)
    state = folder.read_state() if folder.exists() else None
    runs = sum(one.mlflow_run_id is not None for one in state.all_stages()) if state else 0
    if not runs:
        return ""
    return f"{runs} runs and their models in MLflow at {redacted(tracking_target(spec_of(folder), storage).uri)}"
