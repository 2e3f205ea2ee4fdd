"""The rule of image sizes, against networks that are built and run, forwards and backwards."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from orchestrator.errors import UserError
from orchestrator.planning.plan import make_plan
from orchestrator.spec.grid import expand
from orchestrator.spec.loader import load_spec
from tests.support.custom_modules import write_modules
from tests.support.trials import new_storage
from trainables.data.datasets import decoded_file
from trainables.errors import ConfigError
from trainables.models.image_sizes import image_size_problem, takes_image
from trainables.models.registry import MODELS, build_model, meta_model

POOLING = ("convnet", "alexnet", "vgg11")  # whose maps must have a size; the other VGGs differ in what is between the pools
BY_SIZE = ("lenet300", "resnet18", "resnet34", "resnet50")  # made for the size of the images
SIDES = (*range(1, 70), 95, 96)
NARROW = """\
import numpy


def load(root):
    images, labels = numpy.arange(20 * 64).astype("uint8").reshape(20, 1, 16, 4), [0, 1] * 10
    return images, labels, images.copy(), labels, 2
"""


def runs(model: torch.nn.Module, height: int, width: int) -> bool:
    """Whether shapes fit in a forward and a backward pass; on the meta device, which computes none of the values."""
    try:
        scores = model(torch.zeros(2, 1, height, width, device="meta"))
        scores.sum().backward()
    except RuntimeError:
        return False
    return tuple(scores.shape) == (2, 10)


def without_norms(model: torch.nn.Module) -> torch.nn.Module:
    """Norms keep every shape, and take most of the time on the meta device."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.Identity())
    return model


def differences(name: str, sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sizes at which the rule does not say what happens; the network is made anew where it depends on the size."""
    model = None
    wrong = []
    for height, width in sizes:
        if model is None or name in BY_SIZE:
            model = without_norms(meta_model(name, (1, height, width) if name in BY_SIZE else (1, 64, 64), 10))
        if runs(model, height, width) != takes_image(name, height, width):
            wrong.append((height, width))
    return wrong


@pytest.mark.parametrize("name", POOLING)
def test_takes_image_matches_where_pooling_networks_run(name: str) -> None:
    draw = random.Random(0)
    others = [(draw.randint(1, 96), draw.randint(1, 96)) for _ in range(15 if name != "vgg11" else 5)]
    others += [(height, width) for height in range(1, 10) for width in range(1, 10)] if name == "convnet" else []
    sides = SIDES if name != "vgg11" else (*range(1, 20), 31, 32, 33, 64, 96)
    assert differences(name, [(side, side) for side in sides] + others) == []


@pytest.mark.parametrize("name", [name for name in MODELS if name not in POOLING])
def test_takes_image_matches_where_other_networks_run(name: str) -> None:
    sizes = [(1, 1), (15, 16), (64, 3), (65, 65), (3, 96)]
    assert differences(name, sizes if name in ("lenet300", "resnet20", "resnet18") else sizes[:1]) == []


def test_meta_tensors_fail_like_real_ones() -> None:
    model = build_model("convnet", (1, 8, 8), 10)
    for side in range(1, 20):
        try:
            works = tuple(model(torch.zeros(2, 1, side, side)).shape) == (2, 10)
        except RuntimeError:
            works = False
        assert works == takes_image("convnet", side, side)


def test_error_names_supported_sizes() -> None:
    error = image_size_problem("alexnet", 48, 48)
    assert error is not None
    assert error.message == "model: alexnet must get images that it takes, got 48 x 48 pixels"
    assert error.hint == "the nearest that work are 39 x 39 and 64 x 64; resnet20 takes any"
    assert image_size_problem("convnet", 16, 16) is None
    with pytest.raises(ConfigError, match=r"got 16 x 4 pixels; the nearest that work are 16 x 16; resnet20"):
        build_model("convnet", (1, 16, 4), 10)


def test_plan_rejects_unsupported_sizes_of_custom_data(tmp_path: Path) -> None:
    folder = write_modules(tmp_path, narrow=NARROW)
    (tmp_path / "s.yaml").write_text(
        f"name: s\nmodel: convnet\nmodules_path: {folder}\ndataset: {{module: narrow.load, augment: none}}\n"
        "search: {sparsity: [0.5]}\ntraining: {batch_size: 8}\n"
    )
    spec = load_spec(str(tmp_path / "s.yaml"), [])
    first = expand(spec)[0]
    spec.custom_files().with_digests([first]).import_modules(first)
    decoded_file(spec.source())  # from here on the plan knows the shape of its images
    with pytest.raises(UserError, match=r"convnet must get images that it takes, got 16 x 4 pixels"):
        make_plan(spec, new_storage(tmp_path / "runs"))
    assert make_plan(load_spec(str(tmp_path / "s.yaml"), ["model=resnet20"]), new_storage(tmp_path / "runs")).trials
