"""The output of `plan`, as JSON and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from orchestrator.planning.durations import Timed
from orchestrator.planning.estimate import Estimate, estimate, read_records
from orchestrator.planning.given_speed import GivenSpeed
from orchestrator.planning.kept_weights import counts_of_plan
from orchestrator.planning.plan import Plan
from orchestrator.planning.price import price_of
from orchestrator.planning.resolved_settings import read_resolved
from orchestrator.planning.room import room_for
from orchestrator.planning.written_bytes import WrittenBytes, written_bytes
from orchestrator.prose import print_prose
from orchestrator.spec.schema import Resources
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.terminal.tables import duration, duration_range, plain_table, stdout_console
from trainables.wording import counted, size_text


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured on this machine: stages with their times, the device (cpu or cuda), and in words where."""

    timed: Sequence[Timed]
    device: str
    where: str


def plan_facts(
    plan: Plan,
    storage: Storage,
    measured: Measured | None = None,
    price_per_hour: float | None = None,
    given: GivenSpeed | None = None,
) -> dict[str, Any]:
    """The answer of `plan --json`; keys are null while the digest of the data is not known.

    Raises:
        UserError: a setting keeps no weight.
    """
    checked, is_search = plan.checked, plan.spec.is_search
    unsettled = is_search and not plan.settled
    records = read_records(checked, storage) if unsettled else read_records(plan, storage)
    timed = measured.timed if measured else given.timed if given else ()
    cost = estimate(replace(plan, trials=checked.trials) if unsettled else plan, records, timed)
    written = WrittenBytes(models=None, snapshots=None, checkpoint=None)
    if plan.settled:
        written = written_bytes(plan, records.mean_model_bytes, storage.folder)
    room = room_for(plan, written, storage)
    hours = cost.hours if plan.settled else None
    before = SweepFolder(storage, plan.spec.name)
    price = None
    if price_per_hour is not None:
        resolved = read_resolved(before) or ({"device": measured.device} if measured else {})
        price = asdict(price_of(hours, price_per_hour, plan.spec.resources, resolved))
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
        "workers_per_trial": plan.spec.resources.workers,
        "slot_hours": hours,
        "slot_hours_range": cost.hours_range if plan.settled else None,
        "time_source": {
            "records": cost.records,
            "devices": list(cost.devices),
            "measured": measured.where if measured else None,
            "images_per_second": given.images_per_second if given else None,
            "unknown": list(cost.unknown),
        },
        "model_bytes": written.models,
        "snapshot_bytes": written.snapshots,
        "checkpoint_bytes": written.checkpoint,
        "mlflow_bytes": written.mlflow.bytes if plan.settled and written.mlflow else None,
        "needed_bytes": room.needed.bytes if room.needed else None,
        "needed_files": room.needed.files if room.needed else None,
        "free_bytes": room.free.bytes if room.free else None,
        "free_files": room.free.files if room.free else None,
        "room_suffices": room.suffices,
        "price": price,
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
    console.print(Text.assemble((facts["sweep"], "bold"), f": {_heading(facts)}"))
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
        if source := _time_source_text(facts):
            print_prose(console, f"time: {'not known: ' if facts['time_source']['unknown'] else ''}{source}")
        return
    saved = epochs["unshared"] - epochs["shared"]
    share = f" ({saved} saved by sharing warm-ups, {saved / epochs['unshared']:.0%})" if saved else ""
    at_most = "at most " if facts["epochs_at_most"] else ""
    console.print(f"epochs to train: {at_most}{epochs['shared']}{share}")
    if not plan.unfinished:
        return
    if facts["workers_per_trial"] > 1:
        print_prose(console, f"workers: {_workers_text(plan.spec.resources)}")
    print_prose(console, f"time: {_time_text(facts)}")
    print_prose(console, f"written: {_bytes_text(facts)}")
    print_prose(console, f"room: {_room_text(facts)}")
    if facts["price"]:
        print_prose(console, f"price: {_price_text(facts)}")


def _workers_text(resources: Resources) -> str:
    """What a trial of several workers holds, and so a slot."""
    gpus = f"{resources.gpus_per_trial:g} GPUs and " if resources.required_device == "cuda" else ""
    norm = "" if resources.sync_batch_norm else ", each normalising its share of a batch alone,"
    held = f"{gpus}{resources.cpus:g} CPUs, on one or more nodes"
    return f"{resources.workers} train each trial together{norm} and hold one slot: {held}"


def _time_text(facts: dict[str, Any]) -> str:
    """Hours of one slot, their range, and where they are from."""
    hours = facts["slot_hours"]
    if hours is None:
        return f"not known: {_time_source_text(facts)}"
    spread, source = facts["slot_hours_range"], _time_source_text(facts)
    span = f" ({duration_range(*(3600 * bound for bound in spread))})" if spread else ""
    return f"about {duration(hours * 3600)} of one slot{span}" + (f", {source}" if source else "")


def _time_source_text(facts: dict[str, Any]) -> str:
    """Where hours are from and what they leave out, or why they are not known; empty for a plan with nothing to train."""
    source = facts["time_source"]
    if source["unknown"]:
        networks, workers = ", ".join(source["unknown"]), facts["workers_per_trial"]
        of_workers = f" and with {workers} workers" if workers > 1 else ""
        known = f"finished trials of {networks} on these data and with these methods{of_workers}"
        measure = "--measure times a few batches on this machine, --images-per-second takes a speed that you know"
        return f"the storage has no {known}; {measure}"
    if source["measured"]:
        return f"without the start of trials; measured {source['measured']}"
    if speed := source["images_per_second"]:
        return (
            f"at {speed:,g} images per second as given, for training alone: pruning rounds, validation and the start of trials "
            "are not counted"
        )
    return f"by {counted(source['records'], 'finished trial')} on {', '.join(source['devices'])}" if source["records"] else ""


def _bytes_text(facts: dict[str, Any]) -> str:
    if facts["model_bytes"] is None and facts["snapshot_bytes"] is None:
        return "not known, as the sizes of the networks are not"
    parts = [
        f"{_size(facts['model_bytes'])} of sparse models",
        f"{_size(facts['snapshot_bytes'])} of warm-up snapshots",
        f"and for each running trial a checkpoint of {_size(facts['checkpoint_bytes'])}",
    ]
    mlflow = facts["mlflow_bytes"]
    copies = f"{_size(mlflow)} of MLflow's database and copies" if mlflow else "MLflow has copies of the models that it logs"
    return f"{', '.join(parts)}; {copies}"


def _room_text(facts: dict[str, Any]) -> str:
    """What all files together need, and what is free."""
    needed, free = facts["needed_bytes"], facts["free_bytes"]
    text = "what is needed is not known, " if needed is None else f"{_size(needed)} with all small files, "
    return text + ("what is free is not known" if free is None else f"{size_text(free)} are free")


def _size(number: int | None) -> str:
    """Such as "about 1.2 MB"."""
    return "a number of bytes that is not known" if number is None else f"about {size_text(number)}"


def _price_text(facts: dict[str, Any]) -> str:
    price = facts["price"]
    units = price["units_per_slot"]
    share = "" if units in (1.0, None) else f" x {units:g} {price['unit']}{'s' * (units > 1)} each"
    if price["amount"] is None:
        return f"not known: {price['reason']}"
    hours, amount = f"{facts['slot_hours']:.3g} slot hours", price["amount"]
    amount_text = f"{amount:,.2f}" if amount >= 1 else f"{amount:.2g}"
    factors = f"{price['per_hour']:g} for a {price['unit']} hour x {hours}{share}"
    return f"about {amount_text} = {factors}; hours in which nothing runs are not counted"


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
        console.print(f"  kept weights of {model} are not known: {problem}", style="yellow", markup=False)
