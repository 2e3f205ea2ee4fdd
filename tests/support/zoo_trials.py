"""A trial of one network of the zoo with one method: trained, pruned, saved and loaded correctly, or rejected at once."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from orchestrator.storage.layout import TrialFolder, WarmupFolder
from tests.support.trials import DIGITS, RUNTIME, new_storage
from trainables.config.keys import inputs_digest, trial_key, warmup_key
from trainables.config.methods import METHODS
from trainables.config.trial import DatasetConfig, TrainingConfig, TrialConfig
from trainables.custom.files import CustomFiles
from trainables.data.datasets import content_digest
from trainables.data.digits import DIGITS_FACTS
from trainables.data.staging import StagedDataset
from trainables.errors import ConfigError, TrialError
from trainables.export.sparse_model import load_sparse_model
from trainables.preflight.network_case import cases_of
from trainables.preflight.network_checks import examine_cases
from trainables.pruning.kept_weights import kept_weights
from trainables.training.loop import train_epoch
from trainables.trial import epoch
from trainables.trial.checkpoint import TrialState
from trainables.trial.context import TrialContext
from trainables.trial.runner import run_trial

METHODS_OF_WEIGHTS = [name for name, method in METHODS.items() if not method.scores_channels]
IMAGES = torch.rand(4, *DIGITS_FACTS.image_shape, generator=torch.Generator().manual_seed(0))
# What they compute with their weights has no formula, so their figures are not known.
UNCOUNTED = ("bilinear", "standardized")


@dataclass(frozen=True)
class Outcome:
    """`kind` is right, refused or failed; `message` is the refusal or what was wrong."""

    network: str
    method: str
    kind: str
    message: str = ""


def zoo_config(network: str, method: str) -> TrialConfig:
    """One epoch of three steps, half of the weights pruned."""
    return TrialConfig(
        dataset=DatasetConfig(name="digits", limit=30, validation=0.2),
        model=f"module:network_zoo.{network}",
        method=method,
        prune_iterations=2,
        sparsity=0.5 if method not in ("dense", "srste") else 0.0,
        precision="fp32",
        training=TrainingConfig(epochs=1, batch_size=8, lr=0.01),
    )


def outcome(network: str, method: str) -> Outcome:
    """What becomes of the network with the method."""
    with (
        warnings.catch_warnings(action="ignore"),
        TemporaryDirectory(prefix="drive-sweep-zoo-") as folder,
        _counted() as epochs,
    ):
        try:
            wrong = _wrong(zoo_config(network, method), Path(folder))
        except TrialError as error:
            late = "refused after training: " if epochs else ""
            return Outcome(network, method, "failed" if epochs else "refused", f"{late}{error}")
        except Exception as error:
            return Outcome(network, method, "failed", f"{type(error).__name__}: {error}")
    return Outcome(network, method, "failed" if wrong else "right", "; ".join(wrong))


def _wrong(config: TrialConfig, folder: Path) -> list[str]:
    """Examines the network as a sweep does, trains, and looks at what is left; what is wrong about it."""
    storage = new_storage(folder)
    custom_files = CustomFiles(modules_path=str(Path(__file__).parent)).with_digests([config])
    inputs = inputs_digest(content_digest(DIGITS), custom_files.digests_of(config))
    (report,) = examine_cases(cases_of([config]), StagedDataset(source=DIGITS), DIGITS_FACTS, RUNTIME, custom_files)
    if report.errors:
        raise ConfigError("; ".join(map(str, report.errors)))
    runtime = replace(RUNTIME, **report.adjusted)
    files = TrialFolder(storage, trial_key(config, inputs), 1, "zoo", owner="tests")
    files.claim_attempt()
    states: list[TrialState] = []
    context = TrialContext(
        source=DIGITS,
        runtime=runtime,
        files=files,
        snapshots=WarmupFolder(storage, f"warmups/{warmup_key(config, inputs)}", runtime.fingerprint_id()),
        custom_files=custom_files,
        on_progress=states.append,
    )
    result = run_trial(config, context)
    return list(_faults(config, result, states[-1], next(folder.glob("trials/*/model.safetensors.zst"))))


def _faults(config: TrialConfig, result: dict[str, Any], state: TrialState, file: Path) -> Iterator[str]:
    model = state.model.eval()
    saved = load_sparse_model(file)
    with torch.no_grad():
        expected = model(saved.card.normalization.apply(IMAGES)).float()
    if not torch.allclose(saved.predict(IMAGES), expected, rtol=1e-4, atol=1e-5):
        yield "the loaded model has other outputs"
    for name, mask in state.masks.items():
        if bool(dict(model.named_parameters())[name].detach()[~mask].any()):
            yield f"pruned weights of {name} are not zero"
    shapes = {layer["name"]: tuple(layer["shape"]) for layer in result["layers"]}
    kept = kept_weights(config, shapes)
    if not result["kept_weights"] == sum(int(mask.sum()) for mask in state.masks.values()) == kept:
        yield f"{result['kept_weights']} kept weights and not {kept}"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    pruned = sum(prod(shape) for shape in shapes.values()) - kept
    if (result["parameters"], result["kept_parameters"]) != (parameters, parameters - pruned):
        yield f"{result['parameters']} parameters and not {parameters}"
    yield from _faults_of_flops(config.model.rpartition(".")[2], result, model)
    if result["live_weights"] is not None and result["live_weights"] > kept:
        yield f"{result['live_weights']} weights on a path, of {kept}"


def _faults_of_flops(network: str, result: dict[str, Any], model: torch.nn.Module) -> Iterator[str]:
    """Against PyTorch's own counter, with recurrence and attention as the products that they consist of."""
    counter = FlopCounterMode(display=False)
    with torch.backends.mkldnn.flags(enabled=False), counter:  # with gradients, so that no fused attention is taken
        model(torch.zeros(1, *DIGITS_FACTS.image_shape))
    total = None if network in UNCOUNTED else counter.get_total_flops() // 2
    if result["flops"] != total:
        yield f"{result['flops']} multiply-adds and not {total}"
    elif total is not None:
        pruned = sum(layer["flops"] - layer["kept_flops"] for layer in result["layers"])
        if result["kept_flops"] != total - pruned:
            yield f"{result['kept_flops']} multiply-adds are left and not {total - pruned}"


@contextmanager
def _counted() -> Iterator[list[int]]:
    """The epochs that are trained inside, one entry each; modules of the user are forgotten afterwards."""
    epochs: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        epochs.append(kwargs["epoch"])
        return train_epoch(*args, **kwargs)

    path = list(sys.path)
    with patch.object(epoch, "train_epoch", counted):
        yield epochs
    sys.path[:] = path
