"""Shared warm-ups do not change results: continued, restored or trained by another trial, they are the same."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from tests.support.trials import (
    DIGITS,
    RUNTIME,
    all_files,
    metric_points,
    new_storage,
    run,
    tiny_config,
    trial_context,
    warmup_folder,
    warmup_trainer,
)
from trainables.config.keys import warmup_key
from trainables.data.splits import load_data
from trainables.models.registry import build_model, initialize
from trainables.pruning.sparse_trainers import MaskUpdater
from trainables.runtime.device import Runtime
from trainables.training.loop import train_epoch
from trainables.training.optimizer import make_optimizer, momentum_of
from trainables.trial.checkpoint import DamagedCheckpointError, TrialState, _checksum, from_bytes, to_bytes
from trainables.trial.runner import run_trial

FOUR = tiny_config(warmup_epochs=4)


def assert_same_state(first: TrialState, second: TrialState) -> None:
    assert (first.phase, first.position) == (second.phase, second.position)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    buffers = momentum_of(first.optimizer, first.model), momentum_of(second.optimizer, second.model)
    assert list(buffers[0]) == list(buffers[1])
    assert all(torch.equal(buffer, buffers[1][name]) for name, buffer in buffers[0].items())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[tuple[str, int], float | None]]:
    """model_sha256 and points of the trial that trained its own four warm-up epochs without a break."""
    storage = new_storage(tmp_path_factory.mktemp("alone"))
    return run(FOUR, storage)["model_sha256"], metric_points(FOUR, storage)


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with snapshots of epochs 2 and 4."""
    folder = tmp_path_factory.mktemp("snapshots")
    for length in (2, 4):
        warmup_trainer(FOUR, new_storage(folder)).state_at(length)
    return folder


def test_warmup_continues_with_momentum(tmp_path: Path) -> None:
    straight = warmup_trainer(FOUR, new_storage(tmp_path / "straight")).state_at(4)
    parts = new_storage(tmp_path / "parts")
    warmup_trainer(FOUR, parts).state_at(2)
    continued = warmup_trainer(FOUR, parts).state_at(4)
    assert_same_state(straight, continued)
    buffers = momentum_of(continued.optimizer, continued.model)
    assert set(buffers) == {name for name, _ in continued.model.named_parameters()}
    assert all(buffer.any() for buffer in buffers.values())


def test_every_warmup_epoch_has_another_image_order(tmp_path: Path) -> None:
    model = build_model("convnet", (1, 8, 8), 10)
    initialize(model, FOUR.seed)
    model = RUNTIME.to_device(model)
    optimizer = make_optimizer(model, FOUR.training)
    data = load_data(FOUR.dataset, DIGITS, "cpu")
    for epoch in range(2):
        train_epoch(
            model,
            optimizer,
            MaskUpdater(),
            data,
            training=FOUR.training,
            lr=FOUR.training.lr,
            seed=0,
            epoch=epoch,
            runtime=RUNTIME,
        )
    trunk_model = warmup_trainer(FOUR, new_storage(tmp_path)).state_at(2).model
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in trunk_model.state_dict().items())


def test_shared_warmup_equals_a_private_one(tmp_path: Path, alone: tuple[str, dict[tuple[str, int], float | None]]) -> None:
    storage = new_storage(tmp_path)
    shorter = replace(FOUR, warmup_epochs=1, sparsity=0.5, prune_iterations=1)
    run(shorter, storage)
    assert warmup_folder(FOUR, storage).epochs() == [1]
    assert run(FOUR, storage)["model_sha256"] == alone[0]
    assert metric_points(FOUR, storage) == alone[1]
    assert warmup_folder(FOUR, storage).epochs() == [1, 4]


def test_longer_warmup_serves_shorter_trials(tmp_path: Path, alone: tuple[str, dict[tuple[str, int], float | None]]) -> None:
    storage = new_storage(tmp_path)
    epochs: list[int] = []
    longer = warmup_trainer(FOUR, storage, after_epoch=lambda state: epochs.append(state.position))
    for length in (4, 6):
        longer.state_at(length)
    assert epochs == [1, 2, 3, 4, 5, 6]
    before = all_files(storage)
    assert run(FOUR, storage)["model_sha256"] == alone[0]
    assert metric_points(FOUR, storage) == alone[1]
    after = all_files(storage)
    assert {name: after[name] for name in before} == before  # it read the snapshot and trained nothing again


def test_only_requested_lengths_are_kept(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    for length in (2, 5):
        warmup_trainer(FOUR, storage, snapshot_seconds=0.0).state_at(length)
    assert warmup_folder(FOUR, storage).epochs() == [2, 5]


def deleted(content: bytes) -> None:
    return None


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_a_flipped_byte_at_the_end(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def with_a_flipped_digit_in_a_metric(content: bytes) -> bytes:
    at = content.index(b"train/loss")
    at += content[at:].index(b"0.") + 2 if b"0." in content[at : at + 60] else content[at:].index(b"1.") + 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def empty(content: bytes) -> bytes:
    return b""


def of_another_seed(content: bytes) -> bytes:
    """A whole snapshot of the same network and epoch."""
    other = replace(FOUR, seed=1)
    with tempfile.TemporaryDirectory() as scratch:
        storage = new_storage(Path(scratch))
        warmup_trainer(other, storage).state_at(position_of(content))
        return warmup_folder(other, storage).read(position_of(content)) or b""


def position_of(content: bytes) -> int:
    return int(header_of(content)["position"])


def header_of(content: bytes) -> dict[str, Any]:
    whole = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    header: dict[str, Any] = json.loads(whole["__metadata__"]["state"])
    return header


DAMAGES: list[Callable[[bytes], bytes | None]] = [
    deleted,
    truncated,
    with_a_flipped_byte_at_the_end,
    with_a_flipped_digit_in_a_metric,
    empty,
    of_another_seed,
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("epochs", [(4,), (2, 4), (2,)])
def test_lost_or_damaged_snapshot_is_restored(
    damage: Callable[[bytes], bytes | None],
    epochs: tuple[int, ...],
    tmp_path: Path,
    snapshots: Path,
    alone: tuple[str, dict[tuple[str, int], float | None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(snapshots, tmp_path, dirs_exist_ok=True)
    storage = new_storage(tmp_path)
    folder = warmup_folder(FOUR, storage)
    whole = {epoch: folder.read(epoch) or b"" for epoch in (2, 4)}
    for epoch in epochs:
        folder.remove(epoch)
        if (content := damage(whole[epoch])) is not None:
            folder.publish(epoch, content)
    if epochs == (2,):
        folder.remove(4)  # so that 2 is the one to continue from
    with caplog.at_level(logging.WARNING):
        assert run(FOUR, storage)["model_sha256"] == alone[0]
    assert metric_points(FOUR, storage) == alone[1]
    warnings = [f"warm-up snapshot of epoch {epoch} is damaged and is computed again" for epoch in reversed(epochs)]
    assert [warning in record.message for warning, record in zip(warnings, caplog.records, strict=False)] == (
        [] if damage is deleted else [True] * len(epochs)
    )
    healed = from_bytes(folder.read(4) or b"", build_model("convnet", (1, 8, 8), 10), FOUR.training, folder.key)
    assert_same_state(healed, from_bytes(whole[4], build_model("convnet", (1, 8, 8), 10), FOUR.training, folder.key))


def test_altered_byte_of_a_snapshot_is_detected(tmp_path: Path) -> None:
    content = to_bytes(warmup_trainer(FOUR, new_storage(tmp_path)).state_at(1), "key")
    header = 8 + int.from_bytes(content[:8], "little")
    model = build_model("convnet", (1, 8, 8), 10)
    places = [*range(0, header, 7), *range(header, len(content), len(content) // 100)]
    for place in places:
        altered = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        try:
            from_bytes(altered, model, FOUR.training, "key")
        except DamagedCheckpointError:
            continue
        pytest.fail(f"byte {place} of {len(content)} was altered ({altered[place - 20 : place + 20]!r})")


def test_snapshot_without_a_key_is_read(tmp_path: Path) -> None:
    content = to_bytes(warmup_trainer(FOUR, new_storage(tmp_path)).state_at(1), "key")
    tensors, state = load(content), header_of(content)
    del state["key"]
    older = save(tensors, {"state": json.dumps(state), "sha256": _checksum(tensors, json.dumps(state))})
    read = [from_bytes(one, build_model("convnet", (1, 8, 8), 10), FOUR.training, "key") for one in (content, older)]
    assert_same_state(*read)


def test_snapshot_of_another_fingerprint_is_not_used(
    tmp_path: Path, alone: tuple[str, dict[tuple[str, int], float | None]]
) -> None:
    storage = new_storage(tmp_path)
    other = replace(FOUR, seed=1)
    foreign = warmup_folder(FOUR, storage, Runtime(threads=2))
    foreign.publish(4, to_bytes(warmup_trainer(other, new_storage(tmp_path / "other")).state_at(4), foreign.key))
    assert warmup_folder(FOUR, storage).epochs() == []
    assert run(FOUR, storage)["model_sha256"] == alone[0]
    assert (foreign.epochs(), warmup_folder(FOUR, storage).epochs()) == ([4], [4])


@pytest.mark.parametrize(
    "other", [Runtime(threads=2), Runtime(precision="bf16"), Runtime(deterministic=False), Runtime(channels_last=False)]
)
def test_fingerprint_separates_snapshots(other: Runtime) -> None:
    assert other.fingerprint_id() != RUNTIME.fingerprint_id()
    assert Runtime().fingerprint_id() == RUNTIME.fingerprint_id()


def test_trials_that_differ_after_the_warmup_share_it() -> None:
    data = "0" * 32
    other = replace(FOUR, warmup_epochs=9, sparsity=0.5, prune_iterations=50, rewind="init")
    assert warmup_key(other, data) == warmup_key(FOUR, data)


@pytest.mark.parametrize("channels_last", [True, False])
def test_initialisation_does_not_depend_on_the_memory_format(channels_last: bool, tmp_path: Path) -> None:
    plain = build_model("convnet", (1, 8, 8), 10)
    initialize(plain, FOUR.seed)
    runtime = Runtime(channels_last=channels_last)
    model = replace(warmup_trainer(FOUR, new_storage(tmp_path)), runtime=runtime).state_at(0).model
    assert model.get_parameter("conv2.weight").is_contiguous() != channels_last
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_length_zero_is_the_initialisation(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    state = warmup_trainer(FOUR, storage).state_at(0)
    assert (state.position, momentum_of(state.optimizer, state.model), all_files(storage)) == (0, {}, {})


def test_snapshot_restored_by_a_rewind_has_no_trial_points(tmp_path: Path) -> None:
    config = tiny_config(warmup_epochs=3, rewind="epoch 2", sparsity=0.9)
    storage = new_storage(tmp_path)
    context = trial_context(config, storage)

    class LostError(BaseException):
        pass

    def lose_the_snapshots(state: TrialState) -> None:
        if state.phase == "prune":  # they are gone, and the trial with them
            for epoch in context.snapshots.epochs():
                context.snapshots.remove(epoch)
            raise LostError

    with pytest.raises(LostError):
        run_trial(config, replace(context, on_progress=lose_the_snapshots))
    result = run_trial(config, trial_context(config, storage, attempt=2))  # its rewind trains the trunk again
    assert result["metrics"]["prune/sparsity"] == pytest.approx(0.9, abs=1e-3)
    content = context.snapshots.read(2)
    assert content is not None
    assert b"prune/" not in content
    assert b"val/loss" in content


def test_snapshot_of_another_sweep_stays(tmp_path: Path) -> None:
    folder = warmup_folder(FOUR, new_storage(tmp_path))
    folder.publish(2, b"first")
    folder.publish(2, b"second")
    assert folder.read(2) == b"first"
