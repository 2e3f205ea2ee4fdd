"""Trials of several workers: which numbers a sweep file may give them, and what is refused with which fix."""

from __future__ import annotations

import pytest

from orchestrator.spec.grid import expand
from orchestrator.spec.schema import Resources
from tests.support.sweep_files import BASE, error_lines, load_text
from trainables.config.keys import trial_key, warmup_key

AT = "s.yaml:4: resources."
CPU2 = "device: cpu, workers_per_trial: 2"
# Of `resources` -> the message.
CONFLICTS = {
    "workers_per_trial: 2": f"{AT}workers_per_trial must be given only for trials on CPUs, got resources.workers_per_trial 2, "
    "resources.device 'auto'; write resources.gpus_per_trial: 2 for GPUs, or resources.device: cpu",
    "device: cuda, workers_per_trial: 2": f"{AT}workers_per_trial must be given only for trials on CPUs, got "
    "resources.workers_per_trial 2, resources.device 'cuda'; write resources.gpus_per_trial: 2 for GPUs, or "
    "resources.device: cpu",
    "workers_per_trial: 2, gpus_per_trial: 0.5": f"{AT}workers_per_trial must be 1 for trials that share a GPU or have a "
    "single one, got resources.workers_per_trial 2, resources.gpus_per_trial 0.5; write resources.gpus_per_trial: 2, or "
    "resources.workers_per_trial: 1",
    f"{CPU2}, gpus_per_trial: auto": f"{AT}workers_per_trial must be 1 for trials that share a GPU or have a single one, got "
    "resources.workers_per_trial 2, resources.gpus_per_trial 'auto'; remove resources.gpus_per_trial",
    "workers_per_trial: 2, gpus_per_trial: 4": f"{AT}workers_per_trial must be 4, one worker for each GPU, got "
    "resources.workers_per_trial 2, resources.gpus_per_trial 4.0; remove it",
    "device: cpu, gpus_per_trial: 4": f"{AT}gpus_per_trial must be a share for a trial on CPUs, got resources.gpus_per_trial "
    "4.0, resources.device 'cpu'; write resources.workers_per_trial: 4 instead",
    f"{CPU2}, cpus_per_trial: 1.5": f"{AT}cpus_per_trial must be >= 2, at least one CPU for each worker of the trial, got "
    "resources.cpus_per_trial 1.5, resources.workers_per_trial 2; write resources.cpus_per_trial: 2, or remove it",
    "gpus_per_trial: 2, cpus_per_trial: auto": f"{AT}cpus_per_trial must be a number for a trial of several workers, got "
    "resources.cpus_per_trial 'auto', resources.gpus_per_trial 2.0; write resources.cpus_per_trial: 2, one per worker",
    "gpus_per_trial: 2, compile: true": f"{AT}compile must be false for several workers with sync_batch_norm, which was never "
    "run compiled, got resources.compile true, resources.sync_batch_norm true, resources.gpus_per_trial 2.0; write "
    "resources.compile: false, or resources.sync_batch_norm: false",
}


@pytest.mark.parametrize("resources", CONFLICTS)
def test_conflicts_of_workers_are_refused(resources: str) -> None:
    assert error_lines(f"{BASE}resources: {{{resources}}}\n") == [CONFLICTS[resources]]


def test_every_batch_has_an_image_for_each_worker() -> None:
    text = BASE + "resources: {device: cpu, workers_per_trial: 8}\nsearch:\n  training.batch_size: [16, 4, 8]\n"
    rule = "be >= 8, an image for each worker of the trial (resources.workers_per_trial)"
    fix = "take larger batches or fewer workers"
    assert error_lines(text) == [f"s.yaml:6: search.training.batch_size[1] must {rule}, got training.batch_size 4; {fix}"]


def test_method_whose_loss_is_of_whole_batches_has_one_worker() -> None:
    text = BASE + "method: consensus\ngranularity: channel\n"
    (message,) = error_lines(f"{text}resources: {{{CPU2}}}\n")
    rule = "method must be one whose loss is a mean over images, for 2 workers (resources.workers_per_trial)"
    assert message == f"s.yaml:4: {rule}, got method 'consensus'; take another method, or one worker"
    assert load_text(f"{text}resources: {{device: cpu}}\n").resources.workers == 1


# Of `resources` -> workers, CPUs and device of a trial.
ALLOWED: dict[str, tuple[int, float | str, str]] = {
    "device: cpu": (1, 1.0, "cpu"),
    "cpus_per_trial: auto": (1, "auto", "auto"),
    "gpus_per_trial: 0.25": (1, 1.0, "auto"),
    "gpus_per_trial: 1, workers_per_trial: 1": (1, 1.0, "auto"),
    "gpus_per_trial: 4": (4, 4.0, "cuda"),
    "device: cuda, gpus_per_trial: 4.0, workers_per_trial: 4, cpus_per_trial: 16": (4, 16.0, "cuda"),
    "gpus_per_trial: 2, compile: true, sync_batch_norm: false": (2, 2.0, "cuda"),
    CPU2: (2, 2.0, "cpu"),
    f"{CPU2}, gpus_per_trial: 0, cpus_per_trial: 5": (2, 5.0, "cpu"),
}


@pytest.mark.parametrize("resources", ALLOWED)
def test_workers_and_cpus_follow_from_the_file(resources: str) -> None:
    read = load_text(f"{BASE}resources: {{{resources}}}\n").resources
    assert (read.workers, read.cpus, read.required_device) == ALLOWED[resources]


def test_a_sweep_file_without_resources_has_one_worker() -> None:
    assert (Resources.defaults().workers, Resources.defaults().cpus, Resources.defaults().required_device) == (1, 1.0, "auto")


def test_key_knows_the_number_of_workers_only_where_each_normalises_apart() -> None:
    def keys(resources: str) -> list[tuple[str, str]]:
        configs = expand(load_text(f"{BASE}resources: {{{resources}}}\n"))
        return [(trial_key(config, "data"), warmup_key(config, "data")) for config in configs]

    alone = keys("device: cpu")
    assert keys(CPU2) == keys("gpus_per_trial: 4") == keys("device: cpu, sync_batch_norm: false") == alone
    two, four = keys(f"{CPU2}, sync_batch_norm: false"), keys("gpus_per_trial: 4, sync_batch_norm: false")
    assert not {*two, *four} & {*alone}
    assert not {*two} & {*four}
    assert not {warmup for _, warmup in two} & {warmup for _, warmup in alone}
