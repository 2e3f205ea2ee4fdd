"""A trial of several workers: the sum of their parts is the whole batch, and the trial survives the loss of each of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.storage.local import LocalStorage
from tests.support.killed_trials import Fuse, KilledError, MortalStorage
from tests.support.several_workers import (
    Answer,
    computed_by_all,
    different_weights,
    masks_of,
    result_of,
    run_together,
)
from tests.support.trials import metric_points, new_storage, tiny_config, tiny_training, trial_folder, warmup_trainer
from trainables.config.methods import METHODS
from trainables.config.trial import DatasetConfig
from trainables.errors import ConfigError, TrialError
from trainables.models.prunable import prunable_weights
from trainables.models.synchronized_norms import average_statistics, synchronized_norms
from trainables.pruning.score_gradients import scoring_gradients
from trainables.records.failure_record import read_failure
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of
from trainables.training.gradient_sum import GradientSum
from trainables.worker.local_peers import LocalPeers

# Of enough images that a rounding error decides about few weights, and of one round.
CONFIG = tiny_config(dataset=DatasetConfig(name="digits", limit=200), prune_iterations=3, training=tiny_training(epochs=2))
WHOLE = [name for name in METHODS if name not in ("dense", "custom")]

pytestmark = [pytest.mark.process, pytest.mark.server]


@pytest.mark.slow
def test_two_workers_train_like_one_and_twice_the_same(pair: LocalPeers, tmp_path: Path) -> None:
    alone, first, again = (new_storage(tmp_path / name) for name in ("alone", "first", "again"))
    assert run_together(CONFIG, alone, None)["status"] == "finished"
    for storage in (first, again):
        report = run_together(CONFIG, storage, pair)
        assert report["status"] == "finished", report["message"]
    assert result_of(CONFIG, first)["model_sha256"] == result_of(CONFIG, again)["model_sha256"]
    assert metric_points(CONFIG, first) == metric_points(CONFIG, again)
    assert different_weights(masks_of(CONFIG, alone), masks_of(CONFIG, first)) <= 4  # of 1,525 that stay: near the threshold
    ones, twos = metric_points(CONFIG, alone), metric_points(CONFIG, first)
    assert ones.keys() == twos.keys()
    for place, value in ones.items():
        if place[0] in ("train/loss", "val/loss") and place[1] <= CONFIG.warmup_epochs:
            assert twos[place] == pytest.approx(value, rel=1e-5)  # before the masks differ
    (fingerprint,) = result_of(CONFIG, first)["fingerprints"]
    assert (fingerprint["workers"], fingerprint["sync_batch_norm"]) == (2, True)
    assert result_of(CONFIG, first)["device"] == f"2 workers on {fingerprint['processor']}"
    assert "workers" not in result_of(CONFIG, alone)["fingerprints"][0]


# Of a network's batch norm layers, and the shapes of their inputs.
NORMS: tuple[tuple[Callable[[], nn.Module], tuple[int, ...]], ...] = (
    (lambda: nn.BatchNorm2d(3), (5, 3, 4, 4)),
    (lambda: nn.BatchNorm2d(3, momentum=None), (5, 3, 4, 4)),
    (lambda: nn.BatchNorm2d(3, affine=False), (5, 3, 4, 4)),
    (lambda: nn.BatchNorm2d(3, track_running_stats=False), (5, 3, 4, 4)),
    (lambda: nn.BatchNorm2d(3).eval(), (5, 3, 4, 4)),
    (lambda: nn.BatchNorm1d(3, momentum=0.3, eps=0.1), (5, 3)),
    (lambda: nn.BatchNorm1d(3), (5, 3, 7)),
    (lambda: nn.BatchNorm3d(3), (5, 3, 2, 2, 2)),
)


@pytest.mark.slow
def test_norms_of_two_workers_are_those_of_the_whole_batch(pair: LocalPeers) -> None:
    """Outputs, all gradients and running statistics after two batches, of parts of different sizes."""
    expected, answers = _norms(Runtime()), computed_by_all(pair, _norms)
    assert len(expected) == 6 * len(NORMS)
    for position, value in enumerate(expected):
        theirs = [answer[position] for answer in answers]
        if position % 6 < 2:  # of images, of which each worker has some
            theirs = [torch.cat(theirs)]
        elif position % 6 >= 4:
            assert torch.equal(*theirs)
        for one in theirs:
            torch.testing.assert_close(one, value, rtol=1e-4, atol=1e-5)


def _norms(runtime: Runtime) -> Answer:
    """Of each layer output, gradients of input, weight and bias, and running statistics, with values far from zero."""
    group, answer = group_of(runtime), []
    for make, shape in NORMS:
        generator = torch.Generator().manual_seed(0)
        layer = make()
        parameters = list(layer.parameters())
        with torch.no_grad():
            for parameter in parameters:
                parameter.copy_(torch.tensor([1.0, -0.5, 2.0]))
        for _ in range(2):
            layer.zero_grad()
            images = group.part(torch.randn(shape, generator=generator) * 2 + 7).clone().requires_grad_()
            slopes = torch.randn(shape, generator=generator)
            with synchronized_norms(layer, runtime):
                output = layer(images)
                (output * group.part(slopes)).sum().backward()
        nothing, grads = torch.empty(0), [parameter.grad for parameter in parameters]
        group.sum_([grad for grad in grads if grad is not None])
        buffers = dict(layer.named_buffers())
        own = [output.detach(), images.grad, *(grads or (None, None)), buffers.get("running_mean"), buffers.get("running_var")]
        answer += [nothing if one is None else one for one in own]
    return answer


@pytest.mark.slow
def test_scores_of_uneven_parts_are_those_of_the_whole_batch(pair: LocalPeers) -> None:
    """Mean loss and gradients of batches of 5 images and of 1, through a norm of the whole batch."""
    expected = _scoring_gradients(Runtime())
    for answer in computed_by_all(pair, _scoring_gradients):
        for ours, theirs in zip(answer, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def _scoring_gradients(runtime: Runtime) -> Answer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
        batches = [(torch.randn(count, 1, 4, 4), torch.arange(count) % 3) for count in (5, 1)]
    loss, gradients = scoring_gradients(model, prunable_weights(model), batches, runtime)
    return [loss.detach(), *gradients.values()]


@pytest.mark.slow
def test_gradients_are_missing_only_where_they_are_on_all_workers(pair: LocalPeers) -> None:
    """One layer reads images of the first part alone, one images of both, one none."""
    for answer in computed_by_all(pair, _partly_used):
        assert [bool(one.isnan().any()) for one in answer] == [False, False, True]
        assert [float(one.sum()) for one in answer[:2]] == [1.0, 3.0]


def _partly_used(runtime: Runtime) -> Answer:
    """The gradients of the three layers; not a number where one is missing."""
    group = group_of(runtime)
    model = nn.ParameterList([torch.zeros(1) for _ in range(3)])
    loss = model[1] * (1 + group.rank) + (model[0] if group.is_first else 0)
    loss.sum().backward()
    GradientSum(model, group)()
    return [torch.tensor([torch.nan]) if one.grad is None else one.grad for one in model]


@pytest.mark.slow
def test_instance_norms_have_the_statistics_of_the_whole_batch(pair: LocalPeers) -> None:
    expected = _instance_norm(Runtime())
    for answer in computed_by_all(pair, _instance_norm):
        for ours, theirs in zip(answer, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def _instance_norm(runtime: Runtime) -> Answer:
    """The running statistics after two batches of 5."""
    group, layer = group_of(runtime), nn.InstanceNorm1d(2, track_running_stats=True)
    for seed in range(2):
        layer(group.part(torch.randn(5, 2, 7, generator=torch.Generator().manual_seed(seed)) + seed))
    average_statistics(layer, runtime, group.share(5))
    return list(layer.buffers())


class Shortcut(nn.Sequential):
    """Leaves out its second norm, by chance, in the batches of the second worker."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first: torch.Tensor = self[0](images)
        second: torch.Tensor = first if torch.rand(()) < 0.5 else self[1](first)
        return second


@pytest.mark.slow
@pytest.mark.parametrize("same_batches", [0, 1])
def test_norm_that_some_workers_leave_out_is_refused_before_anything_is_sent(same_batches: int, pair: LocalPeers) -> None:
    for answer in computed_by_all(pair, partial(_shortcuts, same_batches)):
        assert [int(one) for one in answer] == [same_batches]


def _shortcuts(same_batches: int, runtime: Runtime) -> Answer:
    """How many batches were computed before the refusal."""
    group, done = group_of(runtime), 0
    model = Shortcut(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    with torch.random.fork_rng(), synchronized_norms(model, runtime), suppress(TrialError):
        for batch in range(9):
            torch.manual_seed(1 if batch < same_batches else 1 - group.rank)  # 0 leaves it out
            model(torch.ones(4, 3) * group.rank)
            group.of_all(batch)
            done += 1
    return [torch.tensor(done)]


@pytest.mark.slow
@pytest.mark.parametrize("other_network", [False, True])
def test_workers_that_have_built_other_networks_do_not_train(other_network: bool, pair: LocalPeers, tmp_path: Path) -> None:
    answers = computed_by_all(pair, partial(_start, other_network, str(tmp_path)))
    assert [bool(answer[0]) for answer in answers] == [not other_network] * 2


def _start(other_network: bool, folder: str, runtime: Runtime) -> Answer:
    """Whether a warm-up starts with the networks of these workers."""
    config = replace(CONFIG, seed=group_of(runtime).rank if other_network else 0)
    trainer = replace(warmup_trainer(config, new_storage(Path(folder))), runtime=runtime)
    try:
        return [torch.tensor(trainer.state_at(0).position == 0)]
    except ConfigError:
        return [torch.tensor(False)]


@pytest.mark.slow
def test_killed_worker_ends_the_attempt_and_the_next_one_ends_alike(pair: LocalPeers, tmp_path: Path) -> None:
    config = tiny_config(training=tiny_training(epochs=6))
    undisturbed, killed = new_storage(tmp_path / "undisturbed"), new_storage(tmp_path / "killed")
    assert run_together(config, undisturbed, pair)["status"] == "finished"

    def kill(report: dict[str, Any]) -> None:
        if report.get("phase") == "train" and report["position"] == 2:
            os.kill(pair.pids()[0], signal.SIGKILL)
            time.sleep(2.0)  # until the connection is ended, while the first worker does not use it

    report = run_together(config, killed, pair, report=kill)
    if report["status"] == "finished":
        pytest.fail("the trial was over before the worker was killed")
    assert (report["status"], report["message"]) == ("lost", "worker 2 of 2 was lost")
    assert trial_folder(config, killed).read("error.json") is None
    assert run_together(config, killed, pair, attempt=2)["status"] == "finished"
    assert result_of(config, killed)["model_sha256"] == result_of(config, undisturbed)["model_sha256"]
    assert metric_points(config, killed) == metric_points(config, undisturbed)


@pytest.mark.slow
def test_failure_of_another_worker_is_that_of_the_trial(pair: LocalPeers, tmp_path: Path) -> None:
    """Worker 2 alone has too little memory."""
    storage = new_storage(tmp_path)
    pair.begin(_forget_memory, True)
    while pair.working():
        pair.poll(1.0)
    report = run_together(CONFIG, storage, pair)
    assert report["status"] == "oom"
    assert report["message"].startswith("worker 2 of 2: ")
    record = read_failure(trial_folder(CONFIG, storage).read("error.json"))
    assert record is not None
    assert record["message"] == report["message"]
    assert record["place"].startswith("test_several_workers.py:")  # of the worker that failed, not of the one that waited
    assert record["traceback"].endswith(
        'in all_reduce\n    raise torch.OutOfMemoryError("no memory is left")\ntorch.OutOfMemoryError: no memory is left\n'
    )
    pair.end()


def _forget_memory(rank: int, full: bool) -> dict[str, Any]:
    """Has this process's first all-reduce find no memory."""

    def all_reduce(tensor: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("no memory is left")

    vars(torch.distributed)["all_reduce"] = all_reduce
    return {"status": "finished"}


@pytest.mark.slow
def test_method_whose_loss_is_of_whole_batches_is_refused(pair: LocalPeers, tmp_path: Path) -> None:
    config = tiny_config(method="consensus", granularity="channel")
    report = run_together(config, new_storage(tmp_path), pair)
    assert (report["status"], "must have one worker" in report["message"]) == ("setting", True)
    assert not list(Path(tmp_path).glob("warmups/*/epoch-*"))


@pytest.mark.long
def test_kill_at_any_write_ends_alike(pair: LocalPeers, tmp_path: Path) -> None:
    config = tiny_config(rewind="epoch 1", training=tiny_training(epochs=1))
    undisturbed = new_storage(tmp_path / "undisturbed")
    assert run_together(config, undisturbed, pair)["status"] == "finished"
    expected = result_of(config, undisturbed)["model_sha256"], metric_points(config, undisturbed)
    for at in range(1, 100):
        root = str(tmp_path / str(at))
        fuse = Fuse(at=at)
        storage = MortalStorage(root, fuse=fuse)
        try:
            run_together(config, storage, pair)
        except KilledError:
            pass
        else:
            break
        again = LocalStorage(root)
        report = run_together(config, again, pair, attempt=2)
        assert report["status"] == "finished", (at, fuse.names[-1], report["message"])
        assert (result_of(config, again)["model_sha256"], metric_points(config, again)) == expected, (at, fuse.names[-1])
    assert at > 10


@pytest.mark.long
@pytest.mark.parametrize("method", WHOLE)
def test_every_method_keeps_the_weights_that_one_worker_keeps(method: str, pair: LocalPeers, tmp_path: Path) -> None:
    config = replace(tiny_config(method=method), dataset=DatasetConfig(name="digits", limit=200))
    alone, together = new_storage(tmp_path / "alone"), new_storage(tmp_path / "together")
    assert run_together(config, alone, None)["status"] == "finished"
    report = run_together(config, together, pair)
    if config.pruning.needs_whole_batches:
        assert report["status"] == "setting"
        return
    assert report["status"] == "finished", report["message"]
    assert result_of(config, together)["kept_weights"] == result_of(config, alone)["kept_weights"]
