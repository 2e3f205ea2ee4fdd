"""The output of `plan`, as JSON and on the terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console

from orchestrator.planning.estimate import Estimate, estimate
from orchestrator.planning.kept_weights import counts_of_plan
from orchestrator.planning.plan import Plan
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.terminal.tables import duration, plain_table, stdout_console


def plan_facts(plan: Plan, storage: Storage) -> dict[str, Any]:
    """The answer of `plan --json`; keys are null while the digest of the data is not known.

    Raises:
        UserError: a setting keeps no weight.
    """
    checked, is_search = plan.checked, plan.spec.is_search
    cost = estimate(replace(plan, trials=checked.trials) if is_search and not plan.settled else plan, storage)
    before = SweepFolder(storage, plan.spec.name)
    known = before.storage.read_json(before.file("trials.json"), fields=("trials",))
    old = {one["key"] for one in known["trials"]} if known else set()
    new = {trial.key for trial in plan.trials}
    return {
        "sweep": plan.spec.name,
        "trials": len(plan.trials),
        "reused": sum(trial.result is not None for trial in plan.trials),
        "reused_by_revision": plan.reused_by_revision(),
        "warmups": [
            {"key": warmup.key if plan.data_digest else None, "epochs": warmup.lengths[-1], "trials": warmup.trials}
            for warmup in plan.warmups()
        ],
        "epochs": plan.epochs(),
        "epochs_at_most": any(trial.config.warmup.auto for trial in plan.unfinished),
        "kept_weights": [count.to_json() for count in counts_of_plan(checked)],
        "slot_hours": cost.hours if plan.settled else None,
        "model_bytes": cost.model_bytes if plan.settled else None,
        "damaged": list(plan.damage.values()),
        "data_digest": plan.data_digest,
        "data_problem": plan.data_problem or None,
        "added": len(new - old) if known else None,
        "removed": len(old - new) if known else None,
        "keys": [{"key": trial.key or None, "name": trial.name, "done": trial.result is not None} for trial in plan.trials],
        "search": _search_facts(plan, storage, cost) if is_search else None,
    }


def _search_facts(plan: Plan, storage: Storage, cost: Estimate) -> dict[str, Any]:
    from orchestrator.terminal.search_plan import search_facts  # which imports all of a search

    return search_facts(plan, storage, cost)


def print_plan(plan: Plan, facts: dict[str, Any]) -> None:
    console = stdout_console()
    console.print(f"[bold]{facts['sweep']}[/bold]: {_heading(facts)}")
    for revision, count in facts["reused_by_revision"].items():
        console.print(f"  {count} reused, made by revision {revision}")
    if facts["added"] is not None and (facts["added"] or facts["removed"]):
        console.print(f"  compared with the last run of this sweep: {facts['added']} trials new, {facts['removed']} gone")
    for problem in facts["damaged"]:
        console.print(f"  {problem}; `run` computes the trial again", style="yellow", markup=False)
    if plan.data_digest is None:
        why = facts["data_problem"] or "the data have not been read yet; --hash reads them"
        console.print(f"  keys and reuse are not known: {why}", style="yellow", markup=False)
    for line in plan.checked.split_lines():
        console.print(f"  {line}", markup=False)
    epochs = facts["epochs"]
    if facts["warmups"]:
        table = plain_table("shared warm-up", numbers=("epochs", "trials"))
        for warmup, planned in zip(facts["warmups"], plan.warmups(), strict=True):
            at_most = "at most " if planned.config.warmup.auto else ""
            table.add_row(planned.name, f"{at_most}{warmup['epochs']}", str(warmup["trials"]))
        console.print(table)
    _print_kept_weights(console, facts["kept_weights"])
    if facts["search"]:
        from orchestrator.terminal.search_plan import print_search

        print_search(console, plan.spec, facts["search"])
    if not plan.settled:
        return
    saved = epochs["unshared"] - epochs["shared"]
    share = f" ({saved} saved by sharing warm-ups, {saved / epochs['unshared']:.0%})" if saved else ""
    at_most = "at most " if facts["epochs_at_most"] else ""
    console.print(f"epochs to train: {at_most}{epochs['shared']}{share}")
    hours, size = facts["slot_hours"], facts["model_bytes"]
    console.print("time of one slot: " + (duration(hours * 3600) if hours is not None else "not known before a first trial"))
    if size is not None:
        console.print(f"sparse models: about {size / 1e6:.1f} MB")


def _heading(facts: dict[str, Any]) -> str:
    search = facts["search"]
    if search is None:
        return f"{facts['trials']} trials, {facts['reused']} of them done"
    course = "has ended" if search["settled"] else "goes on" if search["begun"] else "has not begun"
    counts = f"{facts['reused']} of {facts['trials']} known trials are done"
    stopped = f", {search['stopped_early']} were stopped early" if search["stopped_early"] else ""
    return f"a search that {course}; {counts}{stopped}"


def _print_kept_weights(console: Console, counts: list[dict[str, Any]]) -> None:
    """Prints a row for each configuration with known counts, and each reason why others are unknown once."""
    table = plain_table("network", numbers=("sparsity", "kept weights", "of"))
    for count in counts:
        if count["problem"] is None:
            width = f" (width {count['width']})" if count["width"] != 1 else ""
            name = f"{count['model']}{width}" + (f", {count['method']}" if count["method"] else "")
            table.add_row(name, f"{count['sparsity']:.6g}", f"{count['kept']:,}", f"{count['prunable']:,}")
    if table.row_count:
        console.print(table)
    for warning in dict.fromkeys(count["warning"] for count in counts if count["warning"]):
        console.print(f"  {warning}", style="yellow", markup=False)
    for model, problem in dict.fromkeys((count["model"], count["problem"]) for count in counts if count["problem"]):
        console.print(f"  kept weights of {model} are not known on this machine: {problem}", style="yellow", markup=False)
