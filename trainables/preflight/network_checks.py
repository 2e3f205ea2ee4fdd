"""The checks of a network before a sweep, collected in one report with all findings.

They use random images of the sweep's shape, batch size, precision and device. Shapes: B batch, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy

import torch

from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.references import is_custom
from trainables.data.facts import DataFacts
from trainables.data.normalization import EVALUATION_BATCH
from trainables.data.splits import load_data
from trainables.data.staging import StagedDataset
from trainables.errors import ConfigError, TrialError
from trainables.findings import Finding
from trainables.models.losses import check_loss
from trainables.models.pretrained import load_initial_weights
from trainables.models.prunable import prunable_weights
from trainables.models.weight_use import unprunable_layers
from trainables.preflight.examination import OUT_OF_MEMORY, Examination
from trainables.preflight.network_builds import build_problem
from trainables.preflight.network_case import NetworkCase, NetworkReport
from trainables.preflight.network_methods import (
    check_channel_methods,
    check_channels,
    check_methods,
    check_step,
    check_weight_use,
)
from trainables.preflight.network_outputs import check_outputs
from trainables.preflight.network_parts import check_parts
from trainables.preflight.network_training import check_training, to_device
from trainables.pruning.latency_targets import latency_selection
from trainables.runtime.device import Runtime


def examine_network(
    case: NetworkCase,
    image_shape: tuple[int, int, int],
    num_classes: int,
    runtime: Runtime,
    evaluation_sizes: Sequence[int] = (EVALUATION_BATCH,),
    custom_files: CustomFiles | None = None,
) -> NetworkReport:
    """All findings about a network, whose custom modules are already imported.

    Args:
        runtime: of the sweep; its precision is what "auto" stands for.
        evaluation_sizes: numbers of images in the batches of an evaluation; a single image is tried in any case.
        custom_files: with the file of initial weights, if the sweep has one.
    """
    start = time.perf_counter()
    workers, runtime = runtime.workers, runtime.for_trial(case.config.precision).alone()
    runtime.activate()
    examination = Examination(case, image_shape, num_classes, runtime, sorted({1, *evaluation_sizes}), workers)
    with torch.random.fork_rng():
        try:
            _examine(examination, custom_files)
        except OUT_OF_MEMORY as error:  # only a warning: a trial is retried with a whole GPU
            examination.out_of_memory(error)
    runtime.activate()
    return NetworkReport(
        case=case.id,
        model=case.config.model,
        findings=tuple(dict.fromkeys(examination.findings)),
        adjusted=examination.adjusted,
        seconds=time.perf_counter() - start,
        step_seconds=examination.step_seconds,
    )


def examine_cases(
    cases: Sequence[NetworkCase], data: StagedDataset, facts: DataFacts | None, runtime: Runtime, custom_files: CustomFiles
) -> list[NetworkReport]:
    """The reports of several networks on one data set.

    Args:
        facts: of the data; without them its images are loaded.
    """
    reports = []
    for case in cases:
        config = case.config
        try:
            for member in case.configs:
                custom_files.import_modules(member)
            if facts is None:
                loaded = load_data(config.dataset, data.prepare(), runtime.device, runtime.threads)
                shape, classes = loaded.image_shape, loaded.num_classes
                counts = len(loaded.train) + len(loaded.validation), len(loaded.test)
            else:
                shape, classes = facts.image_shape, facts.num_classes
                counts = sum(facts.train_counts), sum(facts.test_counts)
        except ConfigError as error:
            finding = Finding(check="network", severity="error", message=error.message, hint=error.hint)
            reports.append(NetworkReport(case=case.id, model=config.model, findings=(finding,), adjusted={}, seconds=0.0))
            continue
        reports.append(examine_network(case, shape, classes, runtime, evaluation_sizes(config, *counts), custom_files))
    return reports


def evaluation_sizes(config: TrialConfig, train_images: int, test_images: int) -> list[int]:
    """Sizes of all batches in evaluations of the validation and test images, up to the rounding of splits."""
    if config.dataset.limit is not None:
        train_images, test_images = config.dataset.limit, config.dataset.limit // 5
    sizes: set[int] = set()
    for images in (test_images, round(config.dataset.validation * train_images)):
        sizes |= {min(images, EVALUATION_BATCH), images % EVALUATION_BATCH}
    return sorted(sizes - {0})


def _examine(examination: Examination, custom_files: CustomFiles | None) -> None:
    case = examination.case
    config = case.config
    try:
        check_loss(config.training.loss, examination.num_classes, torch.device(examination.runtime.device))
        model = examination.build()
        for member in examination.case.configs:
            prunable_weights(model, member.prunable.exclude)
        if config.initial_weights and custom_files is not None:
            load_initial_weights(deepcopy(model), custom_files)
        for member in examination.case.configs:
            if member.uses_timings and custom_files is not None:
                latency_selection(member, model, examination.image_shape, custom_files.timing_table())
    except TrialError as error:
        examination.add("network", error.message, error.hint)
        return
    for member in examination.configs_by_exclude():
        examination.findings += unprunable_layers(model, member.prunable.exclude)
    if examination.failed:
        return
    if is_custom(config.model) and (problem := build_problem(config, examination.image_shape, examination.num_classes, model)):
        examination.add("builds", *problem)
        return
    on_device = to_device(examination, model)
    if on_device is None or (is_custom(config.model) and not check_outputs(examination, on_device)):
        return
    check_training(examination, on_device)
    if examination.failed:
        return
    if examination.workers > 1:
        check_parts(examination, on_device)
    check_channel_methods(examination, on_device)
    if examination.failed:
        return
    if not is_custom(config.model):  # this project's tests check the rest for built-in networks
        check_methods(examination, on_device, [member for member in case.configs if is_custom(member.method)])
        return
    check_weight_use(examination, on_device)
    if not examination.failed:
        check_methods(examination, on_device, case.configs)
    if not examination.failed:
        check_channels(examination, on_device)
    if not examination.failed:
        check_step(examination, on_device)
