"""What each command does, one function a command; each takes the parsed options and returns the exit code.

Heavy modules are imported inside the function that needs them, so that `plan` and `status` answer at once. Read by: cli.py.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import EXIT_DONE, EXIT_TRIALS_FAILED, SetupError, UserError
from orchestrator.state import SweepFolder, SweepState, driver_alive, open_sweep
from orchestrator.store import Storage, newest_attempt, open_storage, trial_file
from trainables.records import CHECKPOINT, ERROR

if TYPE_CHECKING:
    from orchestrator.plan import Plan
    from orchestrator.spec import SweepSpec

DEFAULT_STORAGE = "./runs"
LOG_HEAD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


def init(options: Namespace) -> int:
    path = Path(options.path)
    if path.exists():
        raise UserError(f"{path} exists; give another name, or remove it first")
    from orchestrator.spec import template

    path.write_text(template())
    _say(f"wrote {path}; `drive-sweep plan {path}` shows what it would run")
    return EXIT_DONE


def schema(options: Namespace) -> int:
    from orchestrator.spec import json_schema

    print(json.dumps(json_schema(), indent=1))
    return EXIT_DONE


def plan(options: Namespace) -> int:
    from orchestrator.plan import make_plan
    from orchestrator.plan_view import plan_facts, print_plan

    spec = _spec(options)
    storage = open_storage(spec.storage)
    planned = make_plan(spec, storage, hash_data=options.hash)
    facts = plan_facts(planned, storage)
    print(json.dumps(facts, indent=1)) if options.json else print_plan(planned, facts)
    return EXIT_DONE


def trial(options: Namespace) -> int:
    from orchestrator.foreground import run_one

    return run_one(options, _spec)


def run(options: Namespace) -> int:
    from orchestrator.plan import make_plan
    from orchestrator.spec import sweep_text

    spec = _spec(options)
    storage = open_storage(spec.storage)
    planned = make_plan(spec, storage, hash_data=True)
    folder = SweepFolder(storage, spec.name)
    if options.recompute:
        folder.refuse_second_driver()
        for done in planned.trials:
            if done.result is not None:
                set_aside(storage, done.key)
        planned = make_plan(spec, storage, hash_data=True)
    elif _nothing_left(folder, planned):
        return _finished(folder, options)
    from orchestrator.sweep import RunOptions, run_sweep

    storage = open_storage(spec.storage, create=True)
    code = run_sweep(planned, sweep_text(options.file), storage, RunOptions(address=options.address, quiet=options.quiet))
    return _told(folder, options, code)


def resume(options: Namespace) -> int:
    from orchestrator.plan import make_plan
    from orchestrator.sweep import RunOptions, run_sweep

    storage = _storage(options)
    folder = open_sweep(storage, options.name)
    folder.refuse_second_driver()
    planned = make_plan(_spec_of(folder), storage, hash_data=True)
    state = folder.read_state()
    failed = {key for key, status in state.trials.items() if status.state == "failed"} if state else set()
    keys = {one.key for one in planned.unfinished}
    if options.only:
        keys = keys & failed if options.only == "failed" else keys - failed
    if options.trial:
        unknown = sorted(set(options.trial) - {one.key for one in planned.trials})
        if unknown:
            raise UserError(f"--trial {unknown[0]}: no such trial in sweep {options.name!r}; `drive-sweep status` lists them")
        keys &= set(options.trial)
    _say_resume(planned, keys, failed, storage, options.from_scratch)
    if options.dry_run:
        return EXIT_DONE
    if not keys:
        if _nothing_left(folder, planned):
            return _finished(folder, options)
        if planned.unfinished:
            _say("nothing to resume")
            return EXIT_DONE
    if options.from_scratch:
        for key in keys:
            set_aside(storage, key)
    text = (storage.read(folder.file("sweep.yaml")) or b"").decode()
    chosen = RunOptions(chosen=lambda key: key in keys, address=options.address, quiet=options.quiet)
    return _told(folder, options, run_sweep(planned, text, storage, chosen))


def status(options: Namespace) -> int:
    from orchestrator.status_view import print_status

    folder = open_sweep(_storage(options), options.name)
    state = folder.read_state() or SweepState(sweep=options.name)
    print(json.dumps(state.to_status(), indent=1)) if options.json else print_status(state)
    return EXIT_DONE


def logs(options: Namespace) -> int:
    storage = _storage(options)
    folder = open_sweep(storage, options.name)
    path = storage.path(folder.file("sweep.log"))
    wanted = re.compile("")
    if options.trial:
        state = folder.read_state()
        if state is None or options.trial not in state.trials:
            raise UserError(
                f"--trial {options.trial}: no such trial in sweep {options.name!r}; `drive-sweep status` lists them"
            )
        wanted = re.compile(rf" {re.escape(state.trials[options.trial].name)}(?=[ :]|$)")
    position, shown, ended = 0, True, not options.follow
    while True:
        if path.exists():
            with open(path) as file:
                file.seek(position)
                for line in file:
                    if LOG_HEAD.match(line):  # what follows without a time belongs to it
                        shown = bool(wanted.search(line.rstrip()))
                    if shown:
                        print(line, end="")
                position = file.tell()
        if ended:
            break
        state = folder.read_state()
        ended = state is None or not driver_alive(state.driver)  # then once more, for what came meanwhile
        sys.stdout.flush()
        time.sleep(0.5)
    error = storage.read_json(trial_file(options.trial, ERROR)) if options.trial else None
    if error:
        print(f"attempt {error['attempt']} failed ({error['kind']}):\n{error['traceback']}", end="")
    return EXIT_DONE


def stop(options: Namespace) -> int:
    folder = open_sweep(_storage(options), options.name)
    state = folder.read_state()
    if state is None or not driver_alive(state.driver):
        _say(f"sweep {options.name!r} is not running")
        return EXIT_DONE
    if options.trial and options.trial not in state.trials:
        raise UserError(f"--trial {options.trial}: no such trial in sweep {options.name!r}; `drive-sweep status` lists them")
    if options.trial and state.trials[options.trial].state not in ("running", "waiting"):
        _say(f"trial {options.trial} does not run: it is {state.trials[options.trial].state}")
        return EXIT_DONE
    folder.request_stop(options.trial)
    if options.trial:
        _say(f"asked trial {options.trial} to stop; it leaves a checkpoint at its next boundary")
        return EXIT_DONE
    _say("asked the sweep to stop; waiting for it to leave checkpoints")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = folder.read_state()
        if state is None or not driver_alive(state.driver):
            _say(f"stopped; `drive-sweep resume {options.name}` continues it")
            return EXIT_DONE
        time.sleep(0.3)
    raise SetupError(f"sweep {options.name!r} has not ended within 60 s; its driver is {state.driver if state else 'unknown'}")


def sync(options: Namespace) -> int:
    from orchestrator.plan import make_plan
    from orchestrator.projection import sync_sweep

    storage = _storage(options)
    folder = open_sweep(storage, options.name)
    spec = _spec_of(folder)
    if options.tracking_uri:
        spec = spec.model_copy(update={"tracking": spec.tracking.model_copy(update={"uri": options.tracking_uri})})
    record = storage.read_json(folder.file("trials.json"))
    planned = make_plan(spec, storage, digest=record["data_digest"])
    if {one["key"] for one in record["trials"]} != {one.key for one in planned.trials}:
        raise UserError(
            f"sweep {folder.name!r} was run by code with other numerics, so its records cannot be told from the sweep file; "
            f"use that version, or run the sweep again"
        )
    facts = sync_sweep(folder, planned)
    print(json.dumps(facts)) if options.json else _say(f"MLflow at {facts['uri']} shows {facts['runs']} runs of {options.name}")
    return EXIT_DONE


def report(options: Namespace) -> int:
    from orchestrator.report import make_report

    folder = open_sweep(_storage(options), options.name)
    state = folder.read_state() or SweepState(sweep=options.name)
    made = make_report(folder, state)
    if options.html:
        Path(options.html).write_text(made.to_html())
        _say(f"wrote {options.html}")
    print(json.dumps(made.to_json(), indent=1)) if options.json else made.print()
    return EXIT_DONE


def ui(options: Namespace) -> int:
    from orchestrator.projection import tracking_target
    from orchestrator.ui import compare_url, runs_url, serve

    storage = _storage(options)
    folder = open_sweep(storage, options.name or _newest_sweep(storage))
    state = folder.read_state()
    runs: dict[float, list[str]] = {}
    for trial in state.trials.values() if state else ():
        if trial.mlflow_run_id and trial.config["method"] != "dense":  # it has no iterations to be drawn over
            runs.setdefault(trial.config["sparsity"], []).append(trial.mlflow_run_id)
    if state is None or not runs or not state.experiment_id:
        raise UserError(f"MLflow has no runs of sweep {folder.name!r} yet; `drive-sweep sync {folder.name}` sends them")
    with serve(tracking_target(_spec_of(folder), storage), options.port) as base:
        print(f"trials, best first:  {runs_url(base, state.experiment_id, folder.name)}")
        print(f"the sweep's run:     {base}/#/experiments/{state.experiment_id}/runs/{state.parent_run_id}")
        for sparsity, run_ids in sorted(runs.items()):
            print(f"compare at {sparsity!r}:".ljust(20), compare_url(base, state.experiment_id, run_ids))
        sys.stdout.flush()
        _say("the surface: choose Contour Plot there, with warmup_epochs, prune_iterations and test/accuracy")
        if not base.startswith("http://127."):
            return EXIT_DONE
        _say("Ctrl-C ends the server")
        signal.pause()
    return EXIT_DONE


def set_aside(storage: Storage, key: str) -> None:
    """Moves a trial's folder out of the way, so that it begins again; nothing is deleted.

    Attempts go on counting, so that a late worker of the old folder cannot write into the new one.
    """
    folder, attempt = storage.path(f"trials/{key}"), newest_attempt(storage, key)
    if folder.exists():
        aside = storage.path(f"trials/.aside/{key}-{attempt}")
        aside.parent.mkdir(parents=True, exist_ok=True)
        if not aside.exists():  # else nothing but the count has been in the folder since
            folder.rename(aside)
        storage.write_json(trial_file(key, "attempt.json"), {"attempt": attempt + 1})


def _spec(options: Namespace) -> SweepSpec:
    from orchestrator.spec import load_spec

    overrides = list(options.set)
    overrides += [f"name={json.dumps(options.name)}"] if options.name else []
    overrides += [f"storage={json.dumps(options.storage)}"] if options.storage else []
    overrides += [f"tracking.uri={json.dumps(options.tracking_uri)}"] if options.tracking_uri else []
    return load_spec(options.file, overrides)


def _spec_of(folder: SweepFolder) -> SweepSpec:
    """The spec of a sweep that exists, at the storage where it was found (which may have moved)."""
    from orchestrator.spec import spec_from_resolved

    spec = spec_from_resolved(folder.storage.read_json(folder.file("spec.json")))
    return spec.model_copy(update={"storage": folder.storage.root})


def _storage(options: Namespace) -> Storage:
    return open_storage(options.storage or DEFAULT_STORAGE)


def _newest_sweep(storage: Storage) -> str:
    names = storage.names("sweeps")
    if not names:
        raise UserError(f"no sweeps in storage {storage.root}; another storage: --storage")
    return max(names, key=lambda name: storage.path(f"sweeps/{name}").stat().st_mtime)


def _nothing_left(folder: SweepFolder, planned: Plan) -> bool:
    """Whether the sweep's own files say that all of it is finished and MLflow knows it."""
    record = folder.storage.read_json(folder.file("trials.json"))
    state = folder.read_state()
    if record is None or state is None or planned.unfinished or state.tracking_pending or driver_alive(state.driver):
        return False
    same = [(one["key"], one["name"]) for one in record["trials"]] == [(one.key, one.name) for one in planned.trials]
    return same and all(status.state == "finished" and status.mlflow_run_id for status in state.trials.values())


def _finished(folder: SweepFolder, options: Namespace) -> int:
    _say(f"sweep {folder.name!r} is finished; nothing to do")
    return _told(folder, options, EXIT_DONE)


def _told(folder: SweepFolder, options: Namespace, code: int) -> int:
    """The last word of `run` and `resume`: the results, failed trials with their last error lines, how to go on."""
    from orchestrator.report import make_report
    from orchestrator.status_view import print_failures

    state = folder.read_state()
    assert state is not None
    if options.json:
        print(json.dumps(state.to_status(), indent=1))
        return code
    waiting = state.counts()["waiting"] + state.counts()["stopped"]
    if code == EXIT_DONE and waiting:
        _say(f"{waiting} trials are left alone; drive-sweep resume {folder.name} runs them")
    if code in (EXIT_DONE, EXIT_TRIALS_FAILED) and state.counts()["finished"]:
        make_report(folder, state).print()
    print_failures(state)
    if code == EXIT_DONE:
        _say(f"MLflow UI: drive-sweep ui {folder.name}" + _storage_option(folder))
    elif any(status.state != "finished" for status in state.trials.values()):
        _say(f"to continue: drive-sweep resume {folder.name}" + _storage_option(folder))
    return code


def _storage_option(folder: SweepFolder) -> str:
    here = Path(DEFAULT_STORAGE).absolute()
    return "" if Path(folder.storage.root) == here else f" --storage {folder.storage.root}"


def _say_resume(planned: Plan, keys: set[str], failed: set[str], storage: Storage, from_scratch: bool) -> None:
    finished = len(planned.trials) - len(planned.unfinished)
    resumable = {key for key in keys if storage.exists(trial_file(key, CHECKPOINT))} if not from_scratch else set()
    _say(
        f"{finished} finished and kept, {len(keys & failed)} failed and {len(keys - failed)} unfinished to run, "
        f"{len(resumable)} of them from a checkpoint, {len(planned.unfinished) - len(keys)} left alone"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)
