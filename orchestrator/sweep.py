"""Plan -> Ray Tune -> outcome: the flow of a sweep from the first check to the last line.

`run_sweep` may be called again after any interruption; what is finished stays. Reads: plan.py, scheduling.py, driver.py.
Read by: cli.py.
"""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from orchestrator.driver import Driver, initial_state, make_queue
from orchestrator.errors import EXIT_DONE, EXIT_SIGINT, EXIT_TRIALS_FAILED, SetupError
from orchestrator.plan import Plan
from orchestrator.progress import Screen, summary_line
from orchestrator.projection import item_states, make_items, make_tracking, sweep_status
from orchestrator.report import write_report
from orchestrator.revision import source_revision
from orchestrator.state import StateWriter, SweepFolder
from orchestrator.store import StageFolders, Storage

FLUSH_S = 120.0
HURRIED_FLUSH_S = 6.0  # after a request to stop; whoever sent a signal will not wait for long


@dataclass(kw_only=True)
class RunOptions:
    """Options of `run` and `resume` that decide no number.

    Attributes:
        chosen: which unfinished trials to run, by key.
        address: a Ray cluster; None starts a local one, RAY_ADDRESS counts as given.
    """

    chosen: Callable[[str], bool] = lambda key: True
    address: str | None = None
    quiet: bool = False


def run_sweep(plan: Plan, spec_text: str, storage: Storage, options: RunOptions) -> int:
    """Runs what is left of the plan and returns the command's exit code.

    Raises:
        SetupError: another driver runs this sweep, Ray cannot be reached, or GPUs were asked for that are not there.
    """
    folder = SweepFolder(storage, plan.spec.name)
    folder.refuse_second_driver()
    state = initial_state(plan)
    prepare_folder(folder, plan, spec_text)
    writer = StateWriter(folder, state)
    writer.start()
    tracking = make_tracking(plan, storage)
    tracking.start()  # imports and migrates while Ray starts
    try:
        with Screen(quiet=options.quiet) as screen:
            queue = make_queue(plan, storage, options.chosen)
            driver = Driver(
                folder=folder, state=state, writer=writer, tracking=tracking, items=make_items(plan), screen=screen, queue=queue
            )
            queue.on_change = driver.on_change
            _note_signals(driver)
            tracking.reconcile(item_states(plan, state, driver.items))
            folder.log(f"run: {summary_line(state)}")
            if queue.trials:
                _run_on_ray(driver, plan, options)
            driver.interrupt_running()
        code = _outcome(driver)
        close_tracking(driver, plan)
        driver.take_tracking_news()
        return code
    finally:
        tracking.close()
        writer.close()
        folder.clear_stop_requests()


def prepare_folder(folder: SweepFolder, plan: Plan, spec_text: str) -> None:
    """Writes what the sweep is, before anything runs."""
    from orchestrator.spec import resolved

    folder.clear_stop_requests()
    trials = [
        {"key": trial.key, "name": trial.name, "warmup_key": trial.warmup_key if trial.shares else None}
        for trial in plan.trials
    ]
    folder.storage.write(folder.file("sweep.yaml"), spec_text.encode())
    folder.storage.write_json(folder.file("spec.json"), resolved(plan.spec))
    folder.storage.write_json(
        folder.file("trials.json"), {"data_digest": plan.data_digest, "signature": plan.signature, "trials": trials}
    )


def _run_on_ray(driver: Driver, plan: Plan, options: RunOptions) -> None:
    """Ray's whole life within a sweep: start or join, run the stages, leave."""
    driver.screen.say("starting Ray")
    with _quiet_ray_environment(), _joined_cluster(options.address):
        _note_signals(driver)  # ray.init() sets its own handler of SIGTERM
        try:
            _run_stages(driver, plan)
        finally:
            # What still refers to Ray would be freed later, by any thread; Ray ends a process that does so after shutdown.
            gc.collect()


def _run_stages(driver: Driver, plan: Plan) -> None:
    """Decides the automatic choices, and lets Tune run the stages that the queue hands out."""
    from ray import tune

    from orchestrator.scheduling import Hooks, OutOfTimeError, StageSearcher, Ticker
    from trainables.stage import run_stage

    settings = _settings(driver.folder, plan)
    hooks = Hooks(driver.on_report, driver.on_tick)
    resources = plan.spec.resources
    gpus = _gpus_per_trial(plan) if settings.runtime.device == "cuda" else 0.0
    slots = _slots(resources.cpus_per_trial, gpus)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots)

    def placement(config: dict[str, Any]) -> dict[str, float]:
        return {"cpu": resources.cpus_per_trial, "gpu": 1.0 if config.get("whole_gpu") and gpus else gpus}

    trainable = tune.with_resources(tune.with_parameters(run_stage, settings=settings), placement)
    driver.screen.say(f"{len(driver.queue.trials)} trials on {slots} slots, {settings.runtime.device}")
    scratch = tempfile.mkdtemp(prefix="drive-sweep-")
    try:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=StageSearcher(driver.queue, hooks),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="stages",
                storage_path=scratch,
                verbose=0,
                callbacks=[Ticker(hooks, lambda: driver.out_of_time)],
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        ).fit()
    except OutOfTimeError:
        driver.screen.say("stopped without waiting for the last checkpoints")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if hooks.problem:
        raise RuntimeError(f"the driver failed while the sweep ran; it can be resumed\n{hooks.problem}")


@contextmanager
def _quiet_ray_environment() -> Iterator[None]:
    """Tune without its own loggers, files and signal handler; see the traps in the module of the Searcher."""
    settings = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",
        "TUNE_WARN_THRESHOLD_S": "60",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    before = {name: os.environ.get(name) for name in [*settings, "TUNE_MAX_PENDING_TRIALS_PG"]}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _joined_cluster(address: str | None) -> Iterator[None]:
    """A Ray cluster: the one at `address` or RAY_ADDRESS, else one of our own on this machine.

    Our own gets a token made for it alone, so that no other user of the machine can use it and nothing is written into
    the home folder; for an existing cluster the user's RAY_AUTH_MODE and token count.

    Raises:
        SetupError: the cluster cannot be reached.
    """
    import logging

    address = address or os.environ.get("RAY_ADDRESS")
    own = address in (None, "", "local")
    added: list[str] = []
    if own and "RAY_AUTH_MODE" not in os.environ and "RAY_AUTH_TOKEN" not in os.environ:
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
        added = ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN"]
    if not own:
        _refuse_dead_address(str(address))
    import ray  # reads both while it is imported

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        ray.init(
            address="local" if own else address,
            num_cpus=cpus if own else None,
            include_dashboard=False if own else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        where = "a local Ray" if own else f"the Ray cluster at {address}"
        hint = "" if own else "; is it up, and are RAY_AUTH_MODE and RAY_AUTH_TOKEN those of the cluster?"
        raise SetupError(f"cannot start or reach {where}: {str(error).strip().splitlines()[0]}{hint}") from error
    try:
        yield
    finally:
        ray.shutdown()
        for name in added:
            os.environ.pop(name, None)


def _refuse_dead_address(address: str) -> None:
    """Raises SetupError if nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise SetupError(
            f"nothing answers at the Ray cluster's address {address}: {error.strerror or error}; "
            "give the address of a running head with --address or RAY_ADDRESS, or neither for a local Ray"
        ) from error


def _settings(folder: SweepFolder, plan: Plan) -> Any:
    """What all stages share; automatic choices are made once per sweep and kept in resolved.json."""
    import ray

    from trainables.runtime import Runtime, resolve_precision
    from trainables.stage import Settings

    spec = plan.spec
    resources = spec.resources
    gpus_there = ray.cluster_resources().get("GPU", 0)
    wants_gpu = resources.device == "cuda" or (resources.device == "auto" and bool(resources.gpus_per_trial))
    if wants_gpu and not gpus_there:
        raise SetupError(
            "resources: GPUs are asked for, but the cluster has none; set resources.device: cpu, or join a cluster with GPUs"
        )
    device = "cuda" if wants_gpu or (resources.device == "auto" and gpus_there) else "cpu"
    chosen: dict[str, Any] = folder.storage.read_json(folder.file("resolved.json")) or {}
    if chosen.get("device") != device:
        chosen = {"device": device}
    if "auto" not in chosen and any(trial.config.precision == "auto" for trial in plan.trials):
        resolve = ray.remote(num_cpus=1, num_gpus=_gpus_per_trial(plan) if device == "cuda" else 0)(resolve_precision)
        chosen["auto"] = ray.get(resolve.remote("auto", device))
    folder.storage.write_json(folder.file("resolved.json"), chosen)
    deterministic = device == "cpu" if resources.deterministic is None else resources.deterministic
    return Settings(
        folders=StageFolders(folder.storage, folder.name),
        source=spec.source(),
        runtime=Runtime(device=device, threads=max(1, int(resources.cpus_per_trial)), deterministic=deterministic),
        precisions={"auto": chosen["auto"]} if "auto" in chosen else {},
        share_warmups=spec.share_warmups,
        checkpoint_seconds=spec.checkpoint_seconds,
        metrics_seconds=min(5.0, spec.checkpoint_seconds),
        provenance={"data_digest": plan.data_digest, "revision": source_revision(), "sweep": folder.name},
    )


def _gpus_per_trial(plan: Plan) -> float:
    return 1.0 if plan.spec.resources.gpus_per_trial is None else plan.spec.resources.gpus_per_trial


def _slots(cpus: float, gpus: float) -> int:
    """How many stages fit on the cluster at once; at least one, which then waits for the cluster to grow."""
    import ray

    there = ray.cluster_resources()
    fits = [there.get("CPU", 0) / cpus] + ([there.get("GPU", 0) / gpus] if gpus else [])
    return max(1, int(min(fits)))


def _note_signals(driver: Driver) -> None:
    """From now on SIGINT and SIGTERM ask for a clean stop; the second one no longer waits."""

    def note(number: int, frame: FrameType | None) -> None:
        if driver.signal is not None:
            driver.stop_deadline = 0.0
        driver.signal = number

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)


def _outcome(driver: Driver) -> int:
    """The exit code: everything done, some trials failed, or interrupted."""
    if driver.signal is not None:
        return 128 + driver.signal
    if driver.stop_deadline is not None:
        return EXIT_SIGINT
    counts = driver.state.counts()
    return EXIT_DONE if counts["finished"] == len(driver.state.trials) else EXIT_TRIALS_FAILED


def close_tracking(driver: Driver, plan: Plan) -> None:
    """Brings MLflow up to date, as far as it can be reached; the report goes along as artifacts of the sweep's run."""
    signalled = driver.signal
    stopped = signalled is not None or driver.stop_deadline is not None
    artifacts = {} if stopped else write_report(driver.folder, driver.state)
    driver.tracking.close_sweep("KILLED" if stopped else sweep_status(driver.state), artifacts)
    patience_s = HURRIED_FLUSH_S if stopped else FLUSH_S
    if not driver.tracking.flush(patience_s, give_up=lambda: driver.signal != signalled):
        driver.screen.say(
            f"MLflow: {driver.tracking.pending} events could not be sent ({driver.tracking.last_error}); "
            f"results are safe, `drive-sweep sync {plan.spec.name}` sends them"
        )
