"""What must hold after the last resume of a round, each as a function from the round to what does not."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.mlflow_checks import check_registry, check_runs
from tests.chaos.records import FolderRecords
from tests.support.cli import command_line, points_in
from tests.support.searched_sweep import timeless
from trainables.export.sparse_model import stored_sha256

if TYPE_CHECKING:
    from tests.chaos.round import Round

OLD_S = 7200.0  # after which no writer of a file is at work
END_S = 30.0  # for processes whose driver was killed
ACTIVE = ("failed", "running", "waiting")


def check(round_: Round) -> list[str]:
    """What does not hold; empty if all does."""
    return [f"{one.__name__}: {problem}" for one in CHECKS for problem in one(round_)]


def finished(round_: Round) -> Iterator[str]:
    """Every trial is finished or stopped early by the search; MLflow has everything."""
    state = round_.final_status
    left = {name: state[name] for name in (*ACTIVE, "tracking_pending") if state[name]}
    if left or not state["total"] or state["driver_alive"]:
        yield f"{left}, {state['total']} trials, driver_alive {state['driver_alive']}, {state['tracking_error']}"
    if state["stopped"] != state["stopped_early"]:
        yield f"{state['stopped']} are stopped, {state['stopped_early']} of them early"
    active = {stage["name"]: stage["state"] for stage in (*state["trials"], *state["warmups"]) if stage["state"] in ACTIVE}
    if active:
        yield f"stages: {active}"


def decisions(round_: Round) -> Iterator[str]:
    """The search's decisions are those without faults; if a stage failed on the way, each trial is decided once."""
    course = timeless(round_.records.read(f"sweeps/{round_.name}/decisions.jsonl").decode())
    ends = Counter(one["key"] for one in course if one["kind"] == "result")
    doubled = [key for key, count in Counter(one["key"] for one in course if one["kind"] == "trial").items() if count > 2]
    if doubled:
        yield f"trials that began twice in a group: {doubled}"
    if round_.expected is None or course == round_.expected.decisions:
        return
    if not any(one["event"].endswith("_failed") for one in events(round_)) and not _is_damaged(round_, "decisions.jsonl"):
        expected = round_.expected.decisions
        place = next((place for place, (one, other) in enumerate(zip(course, expected, strict=False)) if one != other), -1)
        yield f"{len(course)} decisions, {len(expected)} without faults; the first that differs is {course[place]}"
    if not ends:
        yield "no trial has a result"


def digests(round_: Round) -> Iterator[str]:
    """Models and points of every trial are those without faults; a model file is what its record says."""
    state, names = round_.final_status, set(round_.records.names())
    for trial in state["trials"]:
        folder = f"trials/{trial['key']}"
        points = points_in(round_.records.read(f"{folder}/metrics.jsonl").decode())
        stopped = trial["state"] == "stopped"
        if stopped != (f"{folder}/stopped.json" in names) or stopped == (f"{folder}/result.json" in names):
            yield f"{trial['name']} is {trial['state']}, its folder has {[name for name in names if name.startswith(folder)]}"
            continue
        if not stopped:
            record = json.loads(round_.records.read(f"{folder}/result.json"))
            digest = stored_sha256(round_.records.read(f"{folder}/model.safetensors.zst"))
            if not digest == record["model_sha256"] == trial["model_sha256"]:
                yield f"{trial['name']}: model {digest}, record {record['model_sha256']}, state {trial['model_sha256']}"
            if record["finished_ms"] < record["started_ms"]:
                yield f"{trial['name']} finished before it started"
        yield from _compare(round_, trial, points)


def _compare(round_: Round, trial: dict[str, Any], points: set[tuple[str, int, float]]) -> Iterator[str]:
    key, name, expected = trial["key"], trial["name"], round_.expected
    finished = trial["state"] == "finished"
    if finished and (expected is None or key not in expected.digests):  # compute it by itself, without Ray
        answer = round_.ask("trial", key, "--storage", round_.storage)
        if answer.code:
            yield f"{name}, computed again: {answer.stdout}{answer.stderr}"
    elif expected is None or key not in expected.points:
        return
    elif finished:
        if trial["model_sha256"] != expected.digests[key]:
            yield f"{name} has another model than without faults"
        if points != expected.points[key]:
            yield f"{name} has other points than without faults: {sorted(points ^ expected.points[key])[:6]}"
    elif not (points <= expected.points[key] or (key not in expected.digests and points >= expected.points[key])):
        yield f"{name} was stopped, and has points that it does not have without faults"


def times(round_: Round) -> Iterator[str]:
    """No time is longer than the round took, or negative, whatever the clocks did."""
    state, most = round_.final_status, time.monotonic() - round_.began
    stages = {stage["name"]: stage["seconds"] for stage in (*state["trials"], *state["warmups"])}
    for name, seconds in {
        **stages,
        "slots": state["progress"]["slot_seconds"],
        "drivers": state["progress"]["seconds"],
    }.items():
        if not 0 <= seconds <= most:
            yield f"{name}: {seconds:.1f} s in a round of {most:.1f} s"
    for name in (name for name in round_.records.names() if name.endswith("/result.json") and "/.aside/" not in name):
        metrics = json.loads(round_.records.read(name))["metrics"]
        wrong = {key: value for key, value in metrics.items() if key.endswith("_seconds") and not 0 <= value <= most}
        if wrong:
            yield f"{name}: {wrong}"


def doctor(round_: Round) -> Iterator[str]:
    """The doctor finds nothing; that the disk of a round is small is known."""
    answer = round_.ask("doctor", "--storage", round_.storage, "--json", *round_.tracking_options())
    try:
        answers = json.loads(answer.stdout)
    except ValueError:
        yield f"exit code {answer.code}: {answer.stdout}{answer.stderr}"
        return
    for one in answers:
        if one["check"] != "disk" and (not one["ok"] or one["check"] == "orphans"):
            yield f"{one['check']}: {one['message']}"


def processes(round_: Round) -> Iterator[str]:
    """None of the round's processes is left."""
    deadline = time.monotonic() + END_S
    while left := _processes_of(round_.folder):
        if time.monotonic() > deadline:
            yield f"left: {left}"
            return
        time.sleep(0.2)


def files(round_: Round) -> Iterator[str]:
    """No half-written file is left in the storage but those of killed processes, which `gc` removes when they are old."""
    left = _half_written(round_)
    if left and round_.has_killed and isinstance(round_.records, FolderRecords):
        round_.records.age(left, OLD_S)
        round_.ask("gc", "--storage", round_.storage, "--yes")
        left = _half_written(round_)
    if left:
        yield f"in the storage: {left}"


def _half_written(round_: Round) -> list[str]:
    return [name for name in round_.records.names() if name.endswith(".partial")]


CHECKS: list[Callable[[Round], Iterator[str]]] = [
    finished,
    decisions,
    digests,
    times,
    check_runs,
    check_registry,
    doctor,
    processes,
    files,
]


def events(round_: Round) -> list[dict[str, Any]]:
    return [json.loads(line) for line in round_.events.read_text().splitlines()]


def _is_damaged(round_: Round, name: str) -> bool:
    return any(name in damaged for damaged in round_.damaged)


def _processes_of(folder: Path) -> dict[int, str]:
    mark = f"CHAOS_ROUND={folder}\0".encode()
    own = os.getpid()
    left = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == own:
            continue
        try:
            if mark in (entry / "environ").read_bytes() + b"\0" and (entry / "exe").exists():
                left[int(entry.name)] = command_line(int(entry.name))[:100]
        except OSError:
            continue
    return left
