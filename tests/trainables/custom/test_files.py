"""Custom files on this machine: located, hashed and checked without importing them; weights are never executed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from orchestrator.errors import UserError
from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.base import Storage
from tests.support.custom_modules import (
    NETS,
    PLAIN,
    SWEEP,
    custom_config,
    dense_weights,
    plan_of,
    rejection,
    run_custom,
    sha256_of,
    write_modules,
)
from tests.support.trials import tiny_config
from trainables.custom.files import CustomFiles
from trainables.errors import ConfigError
from trainables.models.registry import build_model


@pytest.mark.process
def test_plan_imports_no_custom_module(folder: Path, storage: Storage) -> None:
    write_modules(folder, mynets="raise RuntimeError\n", mylosses="raise RuntimeError\n")
    save_file(dense_weights(), folder / "dense.safetensors")
    assert all(trial.key for trial in plan_of(SWEEP, storage).trials)
    assert not {"mynets", "mydata", "mylosses"} & set(sys.modules)


def test_missing_module_is_reported_by_plan_and_rejected_by_run(folder: Path, storage: Storage) -> None:
    (folder / "mynets.py").unlink()
    (folder / "s.yaml").write_text(PLAIN)
    plan = make_plan(load_spec("s.yaml"), storage)
    assert plan.data_digest is None
    message = (
        f"model: module:mynets.wide must be a function of a Python file in {folder} or in an installed package, got no such"
    )
    assert message in plan.data_problem
    with pytest.raises(UserError) as error:
        plan_of(PLAIN, storage)
    assert str(error.value) == plan.data_problem


def test_module_of_an_installed_package_is_located(folder: Path) -> None:
    config = custom_config(model="module:torchvision.models.vgg.vgg16")
    digest = CustomFiles(modules_path=str(folder)).with_digests([config]).digests[config.model]
    import torchvision.models.vgg as installed

    assert digest == sha256_of(Path(installed.__file__).read_text())


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("module:random.wide", "must not have the name of another module, got 'random'; rename the file"),
        ("module:numpy.wide", "must not have the name of another module, got 'numpy'; rename the file"),
        ("module:deep.wide", "got a package; name the file in it: deep.FILE.wide"),
        ("module:torchvision.models.vgg16", "got a package; name the file in it: torchvision.models.FILE.vgg16"),
        ("module:nowhere.wide", "got no such file; correct it, or set modules_path to its folder"),
    ],
)
def test_reference_without_a_file_is_rejected(folder: Path, storage: Storage, reference: str, message: str) -> None:
    (folder / "deep").mkdir()
    (folder / "numpy.py").write_text(NETS)
    assert f"model: {message}".removeprefix("model: ") in rejection(
        custom_config(model=reference), storage, folder, ConfigError
    )


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_invalid_weights_are_rejected_and_never_executed(folder: Path, storage: Storage) -> None:
    weights, file, config = dense_weights(), folder / "dense", tiny_config(initial_weights=True)
    first, *others = weights

    def rejection_of(content: Any) -> str:
        save_file(content, file) if isinstance(content, dict) and first in content else torch.save(content, file)
        return rejection(config, storage, folder, ConfigError, file)

    message = rejection_of(
        {first: weights[first].flatten()} | {"extra": torch.zeros(1)} | {name: weights[name] for name in others[1:]}
    )
    assert f"must hold the {len(weights)} tensors of the network, got {str(file)!r} with 1 missing ({others[0]});" in message
    assert "1 unexpected (extra); 1 of another shape (conv1.weight (144,) for (16, 1, 3, 3))" in message
    assert "must be a state dict of tensors" in rejection_of([1, 2])
    assert "must be safetensors or a state dict saved by torch.save" in rejection_of({"state_dict": Evil()})
    assert not Path("executed").exists()
    file.write_bytes(b"something else")
    assert "must be safetensors or a state dict" in rejection(config, storage, folder, ConfigError, file)
    with pytest.raises(ConfigError, match=r"initial_weights must be a file that can be read, got .*nowhere'"):
        run_custom(config, storage, folder, folder / "nowhere")


def test_weights_that_changed_since_the_plan_are_rejected(folder: Path) -> None:
    from trainables.models.pretrained import load_initial_weights

    save_file(dense_weights(), folder / "dense")
    files = CustomFiles(initial_weights=str(folder / "dense")).with_digests([tiny_config(initial_weights=True)])
    network = build_model("convnet", (1, 8, 8), 10)
    load_initial_weights(network, files)
    save_file({name: value + 1 for name, value in dense_weights().items()}, folder / "dense")
    with pytest.raises(ConfigError, match="initial_weights must be the file that the sweep was planned with"):
        load_initial_weights(network, files)
