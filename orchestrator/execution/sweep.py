"""The flow of a sweep from the first check to the exit code: plan -> Ray Tune -> results.

`run_sweep` may be called again after any interruption; finished trials stay.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.bug_report import driver_bug
from orchestrator.cluster.addresses import is_local_ray
from orchestrator.cluster.connection import connect_to_cluster, ray_environment, require_enough_resources, tune_logs_to
from orchestrator.errors import (
    EXIT_DONE,
    EXIT_ENVIRONMENT,
    EXIT_SIGINT,
    EXIT_TRIALS_FAILED,
    DriverBugError,
    SweepError,
)
from orchestrator.execution.close_tracking import close_tracking
from orchestrator.execution.driver import Driver, initial_state, make_queue
from orchestrator.execution.events import EventFile
from orchestrator.execution.full_storage import full_explained, full_noted
from orchestrator.execution.pausing import Pauser
from orchestrator.execution.predicted_durations import PredictedDurations
from orchestrator.execution.recommending import Recommender
from orchestrator.execution.refreshing import SummaryRefresher, made_by_child
from orchestrator.execution.search_run import search_plan, stopped_early
from orchestrator.execution.signals import install_signal_handlers
from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.execution.time_left import TimeLeft
from orchestrator.planning.plan import Plan
from orchestrator.planning.resolved_settings import ResolvedSettings
from orchestrator.planning.room import require_room
from orchestrator.preflight.data import BackgroundPreflight
from orchestrator.preflight.network_process import BackgroundNetworkChecks
from orchestrator.scheduling.queued_stage import StageState
from orchestrator.scheduling.watchdog import Watchdog
from orchestrator.search.decision_file import DecisionFile
from orchestrator.state.space_reserve import SpaceReserve
from orchestrator.state.state_writer import StateWriter
from orchestrator.state.sweep_folder import SweepFolder, open_sweep
from orchestrator.state.sweep_state import state_to_bytes
from orchestrator.state.trial_results import damaged_files
from orchestrator.state.used_keys import require_not_being_deleted, require_not_in_use
from orchestrator.storage.background import run_with_timeout
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import StageFolders, archive_trial
from orchestrator.terminal.overview import summary_line
from orchestrator.terminal.progress import Screen
from orchestrator.tracking.client import CREDENTIALS
from orchestrator.tracking.plan_runs import item_states, planned_runs, sweep_run_spec
from orchestrator.tracking.plan_text import plan_text
from orchestrator.tracking.process import TrackingProcess
from orchestrator.version import source_revision
from trainables.data.staging import StagedDataset
from trainables.errors import StorageError, StorageFullError
from trainables.preflight.network_case import NetworkReport
from trainables.runtime.heartbeat import INTERVAL_S
from trainables.wording import counted

if TYPE_CHECKING:
    from orchestrator.scheduling.tune_adapter import StageSearcher

PREFLIGHT_TIMEOUT_S = 30.0  # to wait for the data preflight, which a short sweep may outrun
CLEAR_TIMEOUT_S = 5.0
MAX_REPORTS_PER_S = 200  # of all stages together; Tune needs half a millisecond for each
SIGNS_OF_LIFE = 4  # of a stage, in the time after which it counts as hung
METRICS_INTERVAL_S = 5.0  # between two writes of a trial's points; on an object store they come with the checkpoints


@dataclass(kw_only=True)
class RunOptions:
    """Options of `run` and `resume` that do not change results.

    Attributes:
        selected: which unfinished trials to run, by key.
        from_scratch: keys of trials that start again; their records are archived.
        decide_anew: a search begins with no decisions; the earlier ones are set aside.
        is_resumed: the sweep must still be there when its lease is held; it may have been renamed or deleted meanwhile.
        address: a Ray cluster; None starts a local one unless RAY_ADDRESS is set.
    """

    selected: Callable[[str], bool] = lambda key: True
    from_scratch: frozenset[str] = frozenset()
    decide_anew: bool = False
    address: str | None = None
    quiet: bool = False
    is_resumed: bool = False
    events: EventFile = field(default_factory=EventFile)


def run_sweep(plan: Plan, spec_text: str, storage: Storage, options: RunOptions) -> int:
    """Runs the unfinished trials of the plan and returns the command's exit code.

    Raises:
        SetupError: another driver runs this sweep, Ray cannot be reached, the cluster has no GPUs that were requested, or
            the storage has too little room or can take no more.
        DriverBugError: drive-sweep itself failed.
    """
    folder = SweepFolder(storage, plan.spec.name)
    with folder.driver_lease(), _failure_written(options.events), full_explained(folder), _bugs_logged(folder):
        if options.is_resumed:
            open_sweep(storage, folder.name)
        require_not_being_deleted(folder, plan.keys())
        require_not_in_use(storage, options.from_scratch, besides=folder.name)
        finished = {trial.key: trial.result for trial in plan.trials if trial.result is not None}
        damage = {**plan.damage, **damaged_files(storage, finished)}
        from_scratch = options.from_scratch | damage.keys()
        plan = plan.without_results(from_scratch)
        require_room(plan, storage, options.selected)
        for key in from_scratch:
            archive_trial(storage, key)
        if options.decide_anew:
            DecisionFile(storage, folder.name).set_aside()
        notes = [f"{problem}; the trial is computed again, its old files are in trials/.aside" for problem in damage.values()]
        return _run_with_lease(folder, plan, spec_text, options, notes)


@contextmanager
def _bugs_logged(folder: SweepFolder) -> Iterator[None]:
    """Turns an unexpected error into a DriverBugError, with its traceback in the sweep's log."""
    try:
        yield
    except (SweepError, StorageError, OSError):
        raise
    except Exception as error:
        raise log_bug(folder, traceback.format_exc()) from error


@contextmanager
def _failure_written(events: EventFile) -> Iterator[None]:
    """Writes the last event of a sweep that ends with an error."""
    try:
        yield
    except Exception as error:
        events.write("sweep_finished", exit_code=getattr(error, "exit_code", EXIT_ENVIRONMENT), error=str(error))
        raise


def log_bug(folder: SweepFolder, text: str) -> DriverBugError:
    """The error for a bug of the driver; its traceback goes into the sweep's log."""
    folder.log(f"bug of drive-sweep\n{text.rstrip()}")
    return driver_bug(text, f"{folder.storage.root}/{folder.file('sweep.log')}")


def _run_with_lease(folder: SweepFolder, plan: Plan, spec_text: str, options: RunOptions, notes: Sequence[str]) -> int:
    """Runs the sweep while this process holds its driver lease; returns the exit code."""
    queue = make_queue(plan, folder.storage, options.selected)
    state = initial_state(plan, folder.read_state(), queue)
    write_sweep_files(folder, plan, spec_text)
    opening = sweep_run_spec(plan, folder.storage)  # before the former state is replaced, which may know the identity
    state.identity = opening.identity
    reserve = SpaceReserve(folder)
    reserve.take(len(state_to_bytes(state, {})))
    writer = StateWriter(folder, state)
    writer.start()
    tracking = TrackingProcess(opening)
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
                events=options.events,
            )
            options.events.notify = driver.announce
            options.events.write("sweep_started", **state.counts())
            queue.on_change = driver.on_change
            driver.on_failure = Pauser(driver=driver, spec=plan.spec).on_failure
            install_signal_handlers(driver)
            for note in notes:
                driver.announce(note)
            tracking.reconcile(item_states(plan, state, driver.items))
            folder.log(f"run: {summary_line(state)}")
            for line in plan.checked.split_lines(only_uneven=True):
                screen.print(line)
            try:
                if queue.trials or not plan.settled:
                    with full_noted(driver):
                        _run_trials(driver, plan, options)
            finally:
                driver.mark_interrupted()
                with full_noted(driver):
                    plan = search_plan(driver, plan)
                Recommender(driver=driver).update()
                close_tracking(driver, plan)
                driver.update_tracking_status()
                state.progress.seconds_left = None
        if driver.full is not None and driver.signal is None:
            raise driver.full
        code = _exit_code(driver)
        options.events.write("sweep_finished", exit_code=code, seconds=state.progress.seconds, **state.counts())
    finally:
        tracking.close()
        reserve.release()
        writer.close()
        folder.storage.flush()
        # with a timeout, since the next run clears them too
        run_with_timeout(CLEAR_TIMEOUT_S, folder.clear_stop_requests)
    if isinstance(writer.problem, StorageFullError):
        raise writer.problem
    return code


def _run_trials(driver: Driver, plan: Plan, options: RunOptions) -> None:
    """Runs the queue on Ray, and the data preflight beside it."""
    preflight = BackgroundPreflight(plan.checked, driver.folder.storage, driver.screen.print)
    _run_on_ray(driver, plan, options)
    preflight.wait(PREFLIGHT_TIMEOUT_S)
    for line in preflight.lines:
        driver.folder.log(line)


def _run_on_ray(driver: Driver, plan: Plan, options: RunOptions) -> None:
    """Starts or joins Ray, runs the stages, and leaves it."""
    driver.screen.print("starting Ray")
    local_ray = is_local_ray(options.address)
    network_checks = BackgroundNetworkChecks(driver.folder, plan.checked, driver.announce) if local_ray else None
    with ray_environment(CREDENTIALS), connect_to_cluster(options.address, driver.screen.print):
        install_signal_handlers(driver)  # ray.init() sets its own handler of SIGTERM
        try:
            reports = network_checks.reports(lambda: driver.signal is not None) if network_checks else ()
            _run_stages(driver, plan, local_ray, reports)
        except InterruptedError:
            driver.request_stop()
        finally:
            # Objects of Ray that are freed after its shutdown, by whichever thread, would end the process.
            gc.collect()


def _run_stages(driver: Driver, plan: Plan, local_ray: bool, reports: Sequence[NetworkReport]) -> None:
    """Resolves the automatic settings, and has Tune run the stages of the queue.

    Args:
        reports: of the networks that were checked while Ray started.
    """
    from ray import tune

    from orchestrator.cluster.capacity import ClusterCapacity
    from orchestrator.cluster.data_shipping import planned_data
    from orchestrator.cluster.node_checks import prepare_nodes
    from orchestrator.execution.autotune import chosen_device, resolve_settings
    from orchestrator.execution.search_start import start_search
    from orchestrator.scheduling.tune_adapter import Hooks, StageSearcher
    from trainables.worker.trainable import run_stage

    checked = plan.checked
    data = planned_data(checked, local_ray)
    excluded_nodes = {}
    if not local_ray:
        kind = "GPU" if chosen_device(driver.folder, plan.spec.resources, joined=True) == "cuda" else "CPU"
        excluded_nodes = prepare_nodes(
            driver.folder.storage, checked, data, kind, driver.announce, lambda: driver.signal is not None
        )
    resolved = resolve_settings(driver, checked, data, excluded=excluded_nodes, joined=not local_ray, reports=reports)
    if local_ray:
        require_enough_resources(resolved.cpus_per_trial, resolved.gpus_per_trial, resolved.workers)
    capacity = ClusterCapacity(
        cpus=resolved.cpus_per_worker,
        gpus=resolved.gpus_per_worker,
        workers=resolved.workers,
        local=local_ray,
        notify=driver.announce,
        max_concurrent=plan.spec.resources.max_concurrent,
    )

    recommender = Recommender(driver=driver)
    driver.state.progress.workers_per_trial = resolved.workers
    time_left = TimeLeft(driver=driver, slots=lambda: capacity.max_concurrent or capacity.slots)
    refresher = SummaryRefresher(driver=driver, plan=plan_text(plan, driver.folder.storage), make=made_by_child)

    def on_tick() -> None:
        driver.on_tick()
        recommender.on_tick()
        time_left.on_tick()
        refresher.on_tick()
        capacity.refresh()
        searcher.end_hung_workers()
        searcher.resolve_lost_workers()

    hooks = Hooks(driver.on_report, on_tick, driver.request_stop, driver.on_hang, PredictedDurations(checked, driver.folder))
    searcher = StageSearcher(driver.queue, hooks, capacity, Watchdog(timeout_s=plan.spec.stage_timeout))
    if plan.spec.is_search:
        start_search(driver, plan, capacity, gpus_per_trial=resolved.gpus_per_trial)
    driver.queue.can_retry_on_whole_gpu = 0 < resolved.gpus_per_trial < 1
    capacity.refresh()
    settings = _settings(driver, plan, resolved, data, time_left.slots())
    trainable = tune.with_resources(tune.with_parameters(run_stage, settings=settings), partial(_placement, resolved))
    for node, reason in excluded_nodes.items():
        capacity.exclude_node(node, reason)
    what = "a search" if plan.spec.is_search else counted(len(driver.queue.trials), "trial")
    each = f" of {resolved.workers} workers" if resolved.workers > 1 else ""
    driver.screen.print(f"{what} on {counted(capacity.slots, 'slot')}{each}, {settings.runtime.device}")
    _run_until_done(driver, trainable, searcher)
    if isinstance(hooks.error, StorageError):
        raise hooks.error
    if hooks.traceback:
        raise log_bug(driver.folder, hooks.traceback)


def _run_until_done(driver: Driver, trainable: Any, searcher: StageSearcher) -> None:
    """Has Tune run stages until the queue is done, or a request to stop has waited long enough."""
    from orchestrator.scheduling.tune_adapter import StopDeadlineError, run_stages

    scratch = tempfile.mkdtemp(prefix="drive-sweep-")
    try:
        with tune_logs_to(driver.folder.log):
            run_stages(trainable, searcher, scratch, lambda: driver.stop_deadline_passed)
    except StopDeadlineError:
        driver.screen.print("stopped without waiting for the last checkpoints")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _placement(resolved: ResolvedSettings, stage: dict[str, Any]) -> Any:
    """The resources that a stage reserves, without the excluded nodes: a bundle for each worker, all of them or none."""
    from ray import tune

    needs = {"CPU": resolved.cpus_per_worker, "GPU": 1.0 if stage.get("whole_gpu") else resolved.gpus_per_worker}
    excluded, workers = stage.get("avoided"), resolved.workers
    selector = {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(excluded)})"}] * workers} if excluded else {}
    return tune.PlacementGroupFactory([needs] * workers, strategy="PACK", **selector)


def _settings(driver: Driver, plan: Plan, resolved: ResolvedSettings, data: StagedDataset, slots: int) -> Any:
    """The settings that all stages share; the more run at once, the less often each reports its progress."""
    from trainables.worker.stage import SweepSettings

    folder, spec = driver.folder, plan.spec
    return SweepSettings(
        folders=StageFolders(folder.storage, folder.name),
        data=data,
        runtime=resolved.runtime(spec.resources),
        adjustments=resolved.adjustments,
        share_warmups=spec.share_warmups,
        checkpoint_seconds=spec.checkpoint_seconds,
        metrics_seconds=min(METRICS_INTERVAL_S, spec.checkpoint_seconds) if folder.storage.folder else spec.checkpoint_seconds,
        provenance={"data_digest": plan.data_digest, "revision": source_revision(), "sweep": folder.name},
        custom_files=plan.custom_files,
        progress_seconds=max(1.0, slots / MAX_REPORTS_PER_S),
        alive_seconds=min(INTERVAL_S, spec.stage_timeout / SIGNS_OF_LIFE) if spec.stage_timeout else INTERVAL_S,
    )


def _exit_code(driver: Driver) -> int:
    """The exit code, by the selected trials: all finished, some failed, or interrupted."""
    if driver.signal is not None:
        return 128 + driver.signal
    if any(stage.state is StageState.FAILED for stage in driver.queue.trials.values()):
        return EXIT_TRIALS_FAILED
    open_trials = [stage for stage in driver.queue.trials.values() if stage.state is not StageState.FINISHED]
    return EXIT_DONE if all(stopped_early(driver, stage.key) for stage in open_trials) else EXIT_SIGINT
