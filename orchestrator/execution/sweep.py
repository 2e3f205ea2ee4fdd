"""Plan -> Ray Tune -> outcome: the flow of a sweep from the first check to the last line.

`run_sweep` may be called again after any interruption; what is finished stays.
"""

from __future__ import annotations

import gc
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator.cluster.addresses import is_local_ray
from orchestrator.cluster.connection import connect_to_cluster, ray_environment, require_enough_resources
from orchestrator.command_line import command
from orchestrator.errors import EXIT_DONE, EXIT_SIGINT, EXIT_TRIALS_FAILED, SetupError
from orchestrator.execution.driver import Driver, initial_state, make_queue
from orchestrator.execution.shutdown_deadline import exit_after_deadline
from orchestrator.planning.plan import Plan
from orchestrator.planning.resolved_settings import ResolvedSettings
from orchestrator.preflight.data import PreflightBeside, preflight_artifacts
from orchestrator.preflight.network_process import ChecksBeside
from orchestrator.process.setup import stop_signals
from orchestrator.reporting.report import write_report
from orchestrator.state.state_writer import StateWriter
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.trial_results import damaged_files
from orchestrator.storage.background import run_with_timeout
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import StageFolders, archive_trial
from orchestrator.terminal.progress import Screen, summary_line
from orchestrator.tracking.client import CREDENTIALS
from orchestrator.tracking.plan_runs import item_states, planned_runs, sweep_opening, sweep_status
from orchestrator.tracking.process import TrackingProcess
from orchestrator.version import source_revision
from trainables.data.staging import StagedDataset
from trainables.preflight.network_case import NetworkReport

FLUSH_S = 120.0
PREFLIGHT_S = 30.0  # for the look at the data that is made beside the sweep; short sweeps may end before it
CLEAR_S = 5.0
REPORTS_PER_S = 200  # of all stages' progress together; Tune takes half a millisecond for each
METRICS_S = 5.0  # between two writes of a trial's points; on an object store they come with the checkpoints
HURRIED_FLUSH_S = 6.0  # after a request to stop; whoever sent a signal will not wait for long


@dataclass(kw_only=True)
class RunOptions:
    """Options of `run` and `resume` that decide no number.

    Attributes:
        chosen: which unfinished trials to run, by key.
        again: trials that begin from nothing; what they have is set aside.
        address: a Ray cluster; None starts a local one, RAY_ADDRESS counts as given.
    """

    chosen: Callable[[str], bool] = lambda key: True
    again: frozenset[str] = frozenset()
    address: str | None = None
    quiet: bool = False


def run_sweep(plan: Plan, spec_text: str, storage: Storage, options: RunOptions) -> int:
    """Runs what is left of the plan and returns the command's exit code.

    Raises:
        SetupError: another driver runs this sweep, Ray cannot be reached, or GPUs were asked for that are not there.
    """
    folder = SweepFolder(storage, plan.spec.name)
    with folder.driver_lease():
        finished = {trial.key: trial.result for trial in plan.trials if trial.result is not None}
        damage = {**plan.damage, **damaged_files(storage, finished)}
        again = options.again | damage.keys()
        for key in again:
            archive_trial(storage, key)
        notes = [f"{problem}; the trial is computed anew, its old files are in trials/.aside" for problem in damage.values()]
        return _run_held(folder, plan.without_results(again), spec_text, options, notes)


def _run_held(folder: SweepFolder, plan: Plan, spec_text: str, options: RunOptions, notes: Sequence[str]) -> int:
    """The sweep's life from its first file to its last line; no other driver works on it meanwhile."""
    queue = make_queue(plan, folder.storage, options.chosen)
    state = initial_state(plan, folder.read_state(), queue)
    prepare_folder(folder, plan, spec_text)
    writer = StateWriter(folder, state)
    writer.start()
    tracking = TrackingProcess(sweep_opening(plan, folder.storage))
    tracking.start()  # imports and migrates while Ray starts
    try:
        with Screen(quiet=options.quiet) as screen:
            driver = Driver(
                folder=folder,
                state=state,
                writer=writer,
                tracking=tracking,
                items=planned_runs(plan),
                screen=screen,
                queue=queue,
            )
            queue.on_change = driver.on_change
            _install_signal_handlers(driver)
            for note in notes:
                driver.tell(note)
            tracking.reconcile(item_states(plan, state, driver.items))
            folder.log(f"run: {summary_line(state)}")
            for line in plan.split_lines(only_uneven=True):
                screen.say(line)
            try:
                if queue.trials:
                    preflight = PreflightBeside(plan, folder.storage, screen.say)
                    _run_on_ray(driver, plan, options)
                    preflight.wait(PREFLIGHT_S)
                    for line in preflight.lines:
                        folder.log(line)
            finally:
                driver.interrupt_running()
                close_tracking(driver, plan)
                driver.take_tracking_news()
        return _outcome(driver)
    finally:
        tracking.close()
        writer.close()
        folder.storage.flush()
        # The next run clears them too, and how this one ended counts more.
        run_with_timeout(CLEAR_S, folder.clear_stop_requests)


def prepare_folder(folder: SweepFolder, plan: Plan, spec_text: str) -> None:
    """Writes what the sweep is, before anything runs."""
    from orchestrator.spec.loader import resolved

    folder.clear_stop_requests()
    trials = [
        {"key": trial.key, "name": trial.name, "warmup_key": trial.warmup_key if trial.shares else None}
        for trial in plan.trials
    ]
    folder.storage.write(folder.file("sweep.yaml"), spec_text.encode())
    spec = resolved(plan.spec)
    if plan.spec.dataset.root is not None:  # `resume` may be called from another folder
        spec["dataset"]["root"] = str(Path(plan.spec.dataset.root).expanduser().absolute())
    spec |= {"modules_path": plan.custom_files.modules_path, "initial_weights": plan.custom_files.initial_weights}
    record = {
        "data_digest": plan.data_digest,
        "data_facts": plan.data_facts and plan.data_facts.to_json(),
        "own_digests": plan.custom_files.digests,
        "trials": trials,
    }
    folder.storage.write_json(folder.file("spec.json"), spec)
    folder.storage.write_json(folder.file("trials.json"), record)


def _run_on_ray(driver: Driver, plan: Plan, options: RunOptions) -> None:
    """Ray's whole life within a sweep: start or join, run the stages, leave."""
    driver.screen.say("starting Ray")
    own_cluster = is_local_ray(options.address)
    beside = ChecksBeside(driver.folder, plan, driver.tell) if own_cluster else None
    with ray_environment(CREDENTIALS), connect_to_cluster(options.address, driver.screen.say):
        _install_signal_handlers(driver)  # ray.init() sets its own handler of SIGTERM
        try:
            reports = beside.reports(lambda: driver.signal is not None) if beside else ()
            _run_stages(driver, plan, own_cluster, reports)
        except InterruptedError:
            driver.begin_stop()
        finally:
            # What still refers to Ray would be freed later, by any thread; Ray ends a process that does so after shutdown.
            gc.collect()


def _run_stages(driver: Driver, plan: Plan, own_cluster: bool, reports: Sequence[NetworkReport]) -> None:
    """Decides the automatic choices, and lets Tune run the stages that the queue hands out.

    Args:
        reports: on networks that were examined before there were workers.
    """
    from ray import tune

    from orchestrator.cluster.capacity import ClusterCapacity
    from orchestrator.cluster.data_shipping import planned_data
    from orchestrator.cluster.node_checks import prepare_nodes
    from orchestrator.execution.autotune import chosen_device, resolve_settings
    from orchestrator.scheduling.tune_adapter import Hooks, StageSearcher, StopDeadlineError, run_stages
    from trainables.worker.trainable import run_stage

    data = planned_data(plan, own_cluster)
    lacking = {}
    if not own_cluster:
        kind = "GPU" if chosen_device(driver.folder, plan.spec.resources, joined=True) == "cuda" else "CPU"
        lacking = prepare_nodes(driver.folder.storage, plan, data, kind, driver.tell, lambda: driver.signal is not None)
    choices = resolve_settings(driver, plan, data, without=lacking, joined=not own_cluster, reports=reports)
    if own_cluster:
        require_enough_resources(choices.cpus_per_trial, choices.gpus_per_trial)
    watch = ClusterCapacity(
        cpus=choices.cpus_per_trial,
        gpus=choices.gpus_per_trial,
        local=own_cluster,
        notify=driver.tell,
        max_concurrent=plan.spec.resources.max_concurrent,
    )

    def on_tick() -> None:
        driver.on_tick()
        watch.refresh()
        searcher.decide_losses()

    hooks = Hooks(driver.on_report, on_tick, driver.begin_stop)
    searcher = StageSearcher(driver.queue, hooks, watch)
    driver.queue.whole_gpu_helps = 0 < choices.gpus_per_trial < 1

    def placement(config: dict[str, Any]) -> Any:
        needs = {"CPU": choices.cpus_per_trial, "GPU": 1.0 if config.get("whole_gpu") else choices.gpus_per_trial}
        avoided = config.get("avoided")
        elsewhere = {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(avoided)})"}]} if avoided else {}
        return tune.PlacementGroupFactory([needs], **elsewhere)

    watch.refresh()
    settings = _settings(driver, plan, choices, data, watch.max_concurrent or watch.slots)
    trainable = tune.with_resources(tune.with_parameters(run_stage, settings=settings), placement)
    for node, reason in lacking.items():
        watch.exclude_node(node, reason)
    driver.screen.say(f"{len(driver.queue.trials)} trials on {watch.slots} slots, {settings.runtime.device}")
    scratch = tempfile.mkdtemp(prefix="drive-sweep-")
    try:
        run_stages(trainable, searcher, scratch, lambda: driver.out_of_time)
    except StopDeadlineError:
        driver.screen.say("stopped without waiting for the last checkpoints")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if hooks.problem:
        raise SetupError(
            f"the driver failed while the sweep ran; `{command('resume', plan.spec.name)}` continues it\n{hooks.problem}"
        )


def _settings(driver: Driver, plan: Plan, choices: ResolvedSettings, data: StagedDataset, slots: int) -> Any:
    """What all stages share; the more of them at once, the more rarely each tells its progress."""
    from trainables.worker.trainable import SweepSettings

    folder, spec = driver.folder, plan.spec
    return SweepSettings(
        folders=StageFolders(folder.storage, folder.name),
        data=data,
        runtime=choices.runtime(spec.resources),
        adjustments=choices.adjustments,
        share_warmups=spec.share_warmups,
        checkpoint_seconds=spec.checkpoint_seconds,
        metrics_seconds=min(METRICS_S, spec.checkpoint_seconds) if folder.storage.folder else spec.checkpoint_seconds,
        provenance={"data_digest": plan.data_digest, "revision": source_revision(), "sweep": folder.name},
        custom_files=plan.custom_files,
        progress_seconds=max(1.0, slots / REPORTS_PER_S),
    )


def _install_signal_handlers(driver: Driver) -> None:
    """From now on SIGINT, SIGTERM and SIGHUP ask for a clean stop; the second one no longer waits."""

    def note(number: int, frame: FrameType | None) -> None:
        if driver.signal is None:
            exit_after_deadline(number)
        else:
            driver.stop_deadline = 0.0
        driver.signal = number

    for number in stop_signals():
        signal.signal(number, note)


def _outcome(driver: Driver) -> int:
    """The exit code, judged by the trials that were to run: all done, some failed, or interrupted."""
    if driver.signal is not None:
        return 128 + driver.signal
    states = [entry.state for entry in driver.queue.trials.values()]
    if "failed" in states:
        return EXIT_TRIALS_FAILED
    return EXIT_DONE if all(state == "finished" for state in states) else EXIT_SIGINT


def close_tracking(driver: Driver, plan: Plan) -> None:
    """Brings MLflow up to date, as far as it can be reached; the report goes along as artifacts of the sweep's run."""
    signalled = driver.signal
    status = sweep_status(driver.state)
    # A request that came when the last trial had finished stopped nothing.
    stopped = status != "FINISHED" and (signalled is not None or driver.stop_deadline is not None)
    artifacts = {} if stopped else _report(driver) | preflight_artifacts(plan, driver.folder.storage)
    driver.tracking.close_sweep("KILLED" if stopped else status, artifacts)
    patience_s = HURRIED_FLUSH_S if stopped else FLUSH_S
    if not driver.tracking.flush(patience_s, give_up=lambda: driver.signal != signalled):
        driver.screen.say(
            f"MLflow: {driver.tracking.pending} events could not be sent ({driver.tracking.last_error}); "
            f"results are safe, `{command('sync', plan.spec.name)}` sends them"
        )


def _report(driver: Driver) -> dict[str, bytes]:
    """The report as artifacts; a picture that cannot be drawn does not decide how a sweep ends."""
    try:
        return write_report(driver.folder, driver.state)
    except Exception as error:
        again = command("report", driver.folder.name)
        driver.screen.say(f"the report could not be made ({error}); `{again}` tries again")
        return {}
