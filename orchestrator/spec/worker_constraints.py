"""Rules about trials of several workers: what they reserve, and what cannot be divided among them."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.conflict import Conflict
from orchestrator.spec.schema import Resources, SweepSpec
from trainables.config.trial import TrialConfig

DEVICE, CPUS, COMPILE = "resources.device", "resources.cpus_per_trial", "resources.compile"
GPUS, WORKERS, SYNC = "resources.gpus_per_trial", "resources.workers_per_trial", "resources.sync_batch_norm"
BATCH_SIZE = "training.batch_size"


def batch_conflicts(config: TrialConfig, resources: Resources) -> Iterator[Conflict]:
    """The conflicts of a trial's batches and of its loss with its workers."""
    count = resources.workers
    if config.training.batch_size < count:
        rule = f"be >= {count}, an image for each worker of the trial ({_source(resources)})"
        yield Conflict((BATCH_SIZE,), rule, "take larger batches or fewer workers")
    if count > 1 and config.pruning.needs_whole_batches:
        rule = f"be one whose loss is a mean over images, for {count} workers ({_source(resources)})"
        yield Conflict(("method",), rule, "take another method, or one worker")


def worker_conflicts(spec: SweepSpec) -> Iterator[Conflict]:
    """The conflicts of keys that say how many workers a trial has, and of keys that several workers cannot do."""
    resources = spec.resources
    count = resources.workers
    if conflict := _contradiction(resources):
        yield conflict
        return
    if count == 1:
        return
    source = _source(resources)
    if resources.cpus_per_trial == "auto":
        yield Conflict((CPUS, source), "be a number for a trial of several workers", f"write {CPUS}: {count}, one per worker")
    elif resources.cpus_per_trial is not None and resources.cpus_per_trial < count:
        rule = f"be >= {count}, at least one CPU for each worker of the trial"
        yield Conflict((CPUS, source), rule, f"write {CPUS}: {count}, or remove it")
    if resources.compile and resources.sync_batch_norm:
        rule = "be false for several workers with sync_batch_norm, which was never run compiled"
        yield Conflict((COMPILE, SYNC, source), rule, f"write {COMPILE}: false, or {SYNC}: false")


def _source(resources: Resources) -> str:
    """The key that says how many workers there are."""
    return GPUS if resources.required_device == "cuda" else WORKERS


def _contradiction(resources: Resources) -> Conflict | None:
    """The first conflict of the keys that say how many workers there are, and on which device."""
    gpus, workers = resources.gpus_per_trial, resources.workers_per_trial
    several_gpus = isinstance(gpus, float) and gpus > 1
    if several_gpus and resources.device == "cpu":
        return Conflict((GPUS, DEVICE), "be a share for a trial on CPUs", f"write {WORKERS}: {gpus:g} instead")
    if several_gpus and workers is not None and workers != gpus:
        return Conflict((WORKERS, GPUS), f"be {gpus:g}, one worker for each GPU", "remove it")
    if workers is None or workers == 1 or several_gpus:
        return None
    if resources.device == "cpu" and not gpus:
        return None
    if resources.device != "cpu" and gpus is None:
        hint = f"write {GPUS}: {workers} for GPUs, or {DEVICE}: cpu"
        return Conflict((WORKERS, DEVICE), "be given only for trials on CPUs", hint)
    hint = f"remove {GPUS}" if resources.device == "cpu" else f"write {GPUS}: {workers}, or {WORKERS}: 1"
    return Conflict((WORKERS, GPUS), "be 1 for trials that share a GPU or have a single one", hint)
