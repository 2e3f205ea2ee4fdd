"""A trial of several workers: the sum of their parts is the whole batch, and the trial survives the loss of each of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
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
from tests.support.trials import metric_points, new_storage, tiny_config, tiny_training, trial_folder
from trainables.config.methods import METHODS
from trainables.config.trial import DatasetConfig
from trainables.models.synchronized_norms import synchronized_norms
from trainables.records.failure_record import read_failure
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of
from trainables.worker.local_peers import LocalPeers

# Of enough images that a rounding error decides about few weights, and of one round.
CONFIG = tiny_config(dataset=DatasetConfig(name="digits", limit=200), prune_iterations=3, training=tiny_training(epochs=2))
WHOLE = [name for name in METHODS if name not in ("dense", "custom")]

pytestmark = [pytest.mark.process, pytest.mark.server]


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalPeers]:
    peers = LocalPeers(2)
    yield peers
    peers.end()


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


@pytest.mark.slow
def test_norms_of_two_workers_are_those_of_the_whole_batch(pair: LocalPeers) -> None:
    """Outputs, running statistics and all gradients, of parts of different sizes."""
    expected = _norm(Runtime())
    answers = computed_by_all(pair, _norm)
    outputs = torch.cat([answer[0] for answer in answers])
    torch.testing.assert_close(outputs, expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([answer[1] for answer in answers]), expected[1], rtol=1e-4, atol=1e-5)
    for position in range(2, 6):
        assert torch.equal(answers[0][position], answers[1][position])
        torch.testing.assert_close(answers[0][position], expected[position], rtol=1e-4, atol=1e-5)


def _norm(runtime: Runtime) -> Answer:
    """Output, gradients of input, weight and bias, and running statistics of a batch of 5, with values far from zero."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(5, 3, 4, 4, generator=generator) * 2 + 7
    slopes = torch.randn(5, 3, 4, 4, generator=generator)
    group, layer = group_of(runtime), nn.BatchNorm2d(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -0.5, 2.0]))
    images = group.part(whole).clone().requires_grad_()
    with synchronized_norms(layer, runtime):
        output = layer(images)
        (output * group.part(slopes)).sum().backward()
    assert images.grad is not None
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    group.sum_([layer.weight.grad, layer.bias.grad])
    assert layer.running_mean is not None
    assert layer.running_var is not None
    gradients = [images.grad, layer.weight.grad, layer.bias.grad]
    return [output.detach(), *gradients, layer.running_mean, layer.running_var]


@pytest.mark.slow
def test_killed_worker_ends_the_attempt_and_the_next_one_ends_alike(pair: LocalPeers, tmp_path: Path) -> None:
    config = tiny_config(training=tiny_training(epochs=6))
    undisturbed, killed = new_storage(tmp_path / "undisturbed"), new_storage(tmp_path / "killed")
    assert run_together(config, undisturbed, pair)["status"] == "finished"

    def kill(report: dict[str, Any]) -> None:
        if report.get("phase") == "train" and report["position"] == 2:
            os.kill(pair.pids()[0], signal.SIGKILL)

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
