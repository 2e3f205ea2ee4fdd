"""The sparse model file: exact, equal for equal trials, compact, and without pickle."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
import zstandard
from safetensors.torch import load

from tests.support.trials import DIGITS, RUNTIME, new_storage, run, tiny_config, trial_folder
from trainables.config.counts import kept_count
from trainables.config.keys import canonical
from trainables.data.batches import evaluation_batches
from trainables.data.normalization import Normalization
from trainables.data.splits import Split, load_data
from trainables.export.model_card import ModelCard
from trainables.export.sparse_model import encode, load_sparse_model
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import Masks, apply_masks, full_masks

CARD = ModelCard(
    model="convnet",
    image_shape=(1, 8, 8),
    num_classes=10,
    normalization=Normalization(mean=(0.25,), std=(0.5,)),
    config=canonical(tiny_config()),
)


def network(seed: int = 0) -> torch.nn.Module:
    model = build_model("convnet", (1, 8, 8), 10)
    initialize(model, seed)
    return model


def random_masks(model: torch.nn.Module, seed: int) -> Masks:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.rand(weight.shape, generator=draw) < 0.1 for name, weight in prunable_weights(model).items()}


def kinds_of_masks(model: torch.nn.Module) -> list[Masks]:
    full = full_masks(prunable_weights(model))
    none = {name: torch.zeros_like(mask) for name, mask in full.items()}
    random = random_masks(model, 1)
    emptied = random | {"conv2.weight": none["conv2.weight"], "conv3.weight": full["conv3.weight"]}
    return [random, random_masks(model, 2), full, none, emptied]


@pytest.mark.parametrize("kind", range(5))
def test_model_is_restored_exactly(kind: int) -> None:
    model = network()
    masks = kinds_of_masks(model)[kind]
    apply_masks(prunable_weights(model), masks)
    content, sha256 = encode(model, masks, CARD)
    loaded = load_sparse_model(content)
    restored = loaded.network.state_dict()
    assert list(restored) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert restored[name].dtype == tensor.dtype
        assert torch.equal(restored[name], tensor), name
    assert set(loaded.masks) == set(masks)
    assert all(torch.equal(loaded.masks[name], mask) for name, mask in masks.items())
    assert (loaded.card, loaded.sha256) == (CARD, sha256)
    assert encode(loaded.network, loaded.masks, loaded.card) == (content, sha256)
    assert not any(module.training for module in loaded.network.modules())


def test_kept_zero_weight_stays_kept() -> None:
    model = network()
    masks = full_masks(prunable_weights(model))
    with torch.no_grad():
        prunable_weights(model)["conv1.weight"].zero_()
    assert load_sparse_model(encode(model, masks, CARD)[0]).masks["conv1.weight"].all()


def test_model_hash_depends_on_values_masks_and_buffers() -> None:
    model = network()
    masks = random_masks(model, 1)
    hashes = {encode(model, masks, CARD)[1], encode(model, random_masks(model, 2), CARD)[1], encode(network(1), masks, CARD)[1]}
    with torch.no_grad():
        model.get_buffer("norm1.running_mean")[0] += 1
    hashes.add(encode(model, masks, CARD)[1])
    assert len(hashes) == 4


def test_equal_trials_give_equal_files(tmp_path: Path) -> None:
    config = tiny_config(sparsity=0.95)
    files, results = [], []
    for place in ("first", "second"):
        storage = new_storage(tmp_path / place)
        results.append(run(config, storage, provenance={"revision": place}))
        files.append(trial_folder(config, storage).read("model.safetensors.zst") or b"")
    assert files[0] == files[1]
    path = tmp_path / "model.safetensors.zst"
    path.write_bytes(files[0])
    model = load_sparse_model(path)
    assert model.sha256 == results[0]["model_sha256"]

    bits = sum(int(mask.sum()) for mask in model.masks.values())
    assert bits == kept_count(0.95, 15_248) == results[0]["kept_weights"] == 762
    assert all(not tensor[~model.masks[name]].any() for name, tensor in prunable_weights(model.network).items())

    test = load_data(config.dataset, DIGITS, "cpu").test
    scores = model.predict(test.images.float() / 255)
    assert (scores.dtype, scores.shape) == (torch.float32, (len(test), 10))
    hits = int((scores.argmax(1) == test.labels).sum())
    assert hits / len(test) == results[0]["metrics"]["test/accuracy"]
    loss = torch.nn.functional.cross_entropy(scores.double(), test.labels)
    assert float(loss) == pytest.approx(results[0]["metrics"]["test/loss"], rel=1e-5)


def test_scores_equal_those_of_the_trial() -> None:
    model = load_sparse_model(encode(network(), random_masks(network(), 1), CARD)[0])
    images = torch.randint(0, 256, (1203, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    split = Split(images=images, labels=torch.zeros(1203, dtype=torch.int64))
    sizes = []
    model.network.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    scores = model.predict(images.float() / 255)
    assert sizes == [500, 500, 203]
    with torch.inference_mode():
        batches = evaluation_batches(split, CARD.normalization)
        expected = torch.cat([model.network(RUNTIME.to_memory_format(part)) for part, _ in batches])
    assert torch.equal(scores, expected)


def test_prediction_does_not_depend_on_the_batch_size() -> None:
    model = load_sparse_model(encode(network(), random_masks(network(), 1), CARD)[0])
    images = torch.rand(1203, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = model.predict(images)
    assert whole.shape == (1203, 10)
    assert torch.equal(whole[:500], model.predict(images[:500]))
    torch.testing.assert_close(whole[7:8], model.predict(images[7:8]), rtol=1e-4, atol=1e-5)
    assert model.predict(images[:0]).shape == (0, 10)


def test_file_is_compressed_safetensors() -> None:
    model = network()
    masks = random_masks(model, 1)
    content, _ = encode(model, masks, CARD)
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)) as stream:
        tensors = load(stream.read())
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    for name, mask in masks.items():
        assert tensors[f"{name}.mask"].dtype == torch.uint8
        assert len(tensors[f"{name}.mask"]) == -(-mask.numel() // 8)
        assert len(tensors[f"{name}.kept"]) == kept[name]
    assert name not in tensors
    dense = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert len(content) < dense / 5


def test_truncated_or_foreign_file_is_rejected(tmp_path: Path) -> None:
    content, _ = encode(network(), random_masks(network(), 1), CARD)
    path = tmp_path / "model.safetensors.zst"
    for part in (b"", content[:3], content[: len(content) // 2], content[:-1], b"\x80\x04\x95 a pickle", b"x" * 1000):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=rf"{path} is not a sparse model file"):
            load_sparse_model(path)
        with pytest.raises(ValueError, match="content is not a sparse model file"):
            load_sparse_model(part)


def test_altered_byte_is_rejected() -> None:
    content, _ = encode(network(), random_masks(network(), 1), CARD)
    for place in range(0, len(content), 97):
        with pytest.raises(ValueError, match="not a sparse model file"):
            load_sparse_model(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


def test_newer_format_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    content, _ = encode(network(), random_masks(network(), 1), CARD)
    monkeypatch.setattr("trainables.export.sparse_model.FORMATS", (0,))
    with pytest.raises(ValueError, match=r"format 1 is newer than 0; update drive-sweep"):
        load_sparse_model(content)
