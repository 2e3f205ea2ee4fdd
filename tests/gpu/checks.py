"""The guarantees that hold on every device, as functions: pytest calls them on a GPU, the command on whatever it runs on.

Each returns a note for the report, or raises AssertionError. They import no pytest, which a machine with plain PyTorch lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.gpu.images import write_images
from tests.gpu.rows import SkippedError
from tests.gpu.trials import TrialGround, small_config
from trainables.config.methods import DriveConfig
from trainables.data.splits import load_data
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import full_masks, num_kept
from trainables.pruning.rounds import prune_round
from trainables.pruning.sparsity_schedules import kept_after_round
from trainables.runtime.device import Runtime
from trainables.worker.probe import compile_problem

IMAGES = 60, 20  # training and test images of 8 x 8
ROUNDS, SPARSITY = 4, 0.98

Check = Callable[[str, Path], str]


def shared_and_private_warmups_are_equal(device: str, folder: Path) -> str:
    """A trial that starts from the snapshots of others ends with the same bits and points as one that trains alone."""
    images, runtime = write_images(folder, 8, *IMAGES), Runtime(device=device)
    config, shorter = (small_config(images, model="resnet20", warmup_epochs=epochs) for epochs in (3, 1))
    together = TrialGround(folder=folder / "together", images=images, runtime=runtime)
    together.run(shorter)
    expect("the epochs with a snapshot", together.snapshots(config).epochs(), [1])
    from_snapshot = together.run(config)
    own = TrialGround(folder=folder / "own", images=images, runtime=runtime)
    alone = own.run(config, shares=False)
    expect("the model", from_snapshot["model_sha256"], alone["model_sha256"])
    expect("the metric points", together.points(config), own.points(config))
    expect("the devices", {fingerprint["device"] for fingerprint in alone["fingerprints"]}, {device})
    return f"sha256 {alone['model_sha256'][:12]}"


def rounds_reach_their_counts_with_equal_scores(device: str, folder: Path) -> str:
    """A constant weight is scored by its size alone, so the order of the weights decides."""
    images, runtime = write_images(folder, 8, *IMAGES), Runtime(device=device)
    runtime.activate()
    by_size = DriveConfig(magnitude=1, connection=0, convergence=0)
    config = small_config(images, prune_iterations=ROUNDS, sparsity=SPARSITY, options=by_size)
    data = load_data(config.dataset, images.source, device)
    model = build_model(config.model, data.image_shape, data.num_classes)
    initialize(model, config.seed)
    model = runtime.to_device(model)
    weights = prunable_weights(model)
    with torch.no_grad():
        for weight in weights.values():
            weight.fill_(0.01)
    masks, total = full_masks(weights), sum(weight.numel() for weight in weights.values())
    for round_ in range(1, ROUNDS + 1):
        masks, metrics, _ = prune_round(model, weights, masks, data, config, round_, runtime)
        kept = kept_after_round(round_, ROUNDS, SPARSITY, total, "exponential")
        expect(f"the kept weights of round {round_}", (num_kept(masks), metrics["prune/kept_weights"]), (kept, kept))
        flat = torch.cat([mask.flatten() for mask in masks.values()])
        expect("the kept weights among the earlier ones", int(flat[:kept].count_nonzero()), kept)
    expect("the last count", kept, round((1 - SPARSITY) * total))
    return f"{kept} of {total} weights"


def trial_runs_compiled_in_bf16_and_channels_last(device: str, folder: Path) -> str:
    """The fastest settings: compiled, on a GPU as CUDA graphs, without deterministic kernels."""
    if device == "cpu":
        raise SkippedError("compiling takes half a minute on a CPU")
    if problem := compile_problem(device):
        raise SkippedError(f"nothing can be compiled here: {problem}")
    images = write_images(folder, 8, *IMAGES)
    fast = Runtime(device=device, deterministic=False, precision="bf16", channels_last=True, compile=True)
    ground = TrialGround(folder=folder / "fast", images=images, runtime=fast)
    config = small_config(images, precision="bf16")
    result = ground.run(config)
    total = sum(mask.numel() for mask in ground.model(config).masks.values())
    expect("the kept weights", result["kept_weights"], round((1 - config.sparsity) * total))
    (fingerprint,) = result["fingerprints"]
    settings = tuple(fingerprint[name] for name in ("precision", "compile", "channels_last"))
    expect("the settings", settings, ("bf16", True, True))
    expect("a finite training loss", 0 < result["metrics"]["train/loss"] < 10, True)
    return f"training loss {result['metrics']['train/loss']:.3f}"


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        shared_and_private_warmups_are_equal,
        rounds_reach_their_counts_with_equal_scores,
        trial_runs_compiled_in_bf16_and_channels_last,
    )
}


def expect(what: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise AssertionError(f"{what}: must be {wanted}, got {got}")
