"""Hardware probes for a sweep: precision, compilation, and speed and memory of one trial. They run in a Ray task or actor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.files import NO_CUSTOM_FILES, CustomFiles
from trainables.data.facts import DataFacts
from trainables.data.staging import StagedDataset
from trainables.preflight.network_case import NetworkCase
from trainables.runtime.device import Runtime, resolve_precision
from trainables.runtime.machine import peak_memory
from trainables.wording import one_line

STEPS = 4  # training steps between two reads of the clock; reading the loss after them waits for the device


def probe_hardware(
    device: str,
    wants_compile: bool,
    cases: Sequence[NetworkCase] = (),
    data: StagedDataset | None = None,
    facts: DataFacts | None = None,
    runtime: Runtime | None = None,
    custom_files: CustomFiles = NO_CUSTOM_FILES,
    known: Literal["fp32", "bf16"] | None = None,
) -> dict[str, Any]:
    """The answers that only the hardware can give.

    Args:
        cases: networks to examine, in `runtime`.
        known: precision that "auto" was resolved to before.

    Returns:
        "precision": what "auto" stands for here; "compile_problem": why compilation does not work, empty if it does;
        "reports": of the networks, if there are any.
    """
    problem = compile_problem(device) if wants_compile else ""
    precision = resolve_precision("auto", device)
    answer: dict[str, Any] = {"precision": precision, "compile_problem": problem}
    if cases and data is not None and runtime is not None:
        from trainables.preflight.network_checks import examine_cases

        answer["reports"] = examine_cases(cases, data, facts, replace(runtime, precision=known or precision), custom_files)
    return answer


def compile_problem(device: str) -> str:
    """Why a small network cannot be compiled and trained here; empty if it can."""
    import torch
    from torch import nn

    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).to(device)
    images = torch.zeros(2, 3, 8, 8, device=device)
    network(images)
    try:
        Runtime(device=device, compile=True).compiled(network)(images).sum().backward()
    except Exception as error:  # the compiler raises errors of many types; the sweep then runs without it
        return one_line(error)
    return ""


class Probe:
    """The training steps of one trial, to be timed beside other probes."""

    def __init__(
        self, config: dict[str, Any], data: StagedDataset, runtime: Runtime, custom_files: CustomFiles = NO_CUSTOM_FILES
    ) -> None:
        from trainables.data.normalization import EVALUATION_BATCH
        from trainables.data.splits import load_data
        from trainables.models.blocks import without_blocks
        from trainables.models.prunable import prunable_weights
        from trainables.models.registry import initialized_network
        from trainables.training.optimizer import make_optimizer

        self.config = from_canonical(TrialConfig, config)
        self.runtime = runtime.for_trial(self.config.precision).alone()
        self.runtime.activate()
        custom_files.import_modules(self.config)
        loaded = load_data(self.config.dataset, data.prepare(), runtime.device, runtime.threads)
        images = STEPS * self.config.training.batch_size
        self.whole = loaded
        self.data = replace(loaded, train=loaded.train.first(images), test=loaded.test.first(EVALUATION_BATCH))
        self.model = self.runtime.to_device(initialized_network(self.config, loaded.image_shape, loaded.num_classes))
        self.optimizer = make_optimizer(self.model, self.config.training)
        self.pruned = without_blocks(self.model, self.config.block)
        self.weights = prunable_weights(self.pruned, self.config.prunable.exclude)

    def measure_peak_memory(self) -> int:
        """Runs a few steps of every kind; the bytes of GPU memory, or else of process memory, that a trial needs at most."""
        from trainables.data.batches import scoring_batches, training_batches
        from trainables.pruning.score_gradients import scoring_gradients
        from trainables.training.loop import evaluate

        batches = scoring_batches(self.data, self.config.training.batch_size, 1, self.config.seed, 1)
        loss_name = self.config.training.loss
        scoring_gradients(self.pruned, self.weights, batches, self.runtime, loss_name=loss_name)
        # An epoch holds what it prepares for all images, such as padded ones, while it trains.
        epoch = training_batches(self.whole, self.config.training.batch_size, self.config.seed, 0)
        next(epoch)
        self._train()
        epoch.close()
        evaluate(self.model, self.data.test, self.data.normalization, self.runtime, "test", loss_name)
        if self.runtime.device != "cuda":
            return peak_memory()
        import torch

        free, total = torch.cuda.mem_get_info()  # includes the CUDA context, unlike PyTorch's own counters
        return total - free

    def images_per_second(self, seconds: float) -> float:
        """Images trained per second, measured for so many seconds."""
        start, images = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            images += self._train()
        return images / elapsed

    def gpu_bytes(self) -> int:
        """Memory of the GPU; 0 without one."""
        import torch

        return torch.cuda.mem_get_info()[1] if self.runtime.device == "cuda" else 0

    def _train(self) -> int:
        from trainables.pruning.sparse_trainers import MaskUpdater
        from trainables.training.loop import train_epoch

        train_epoch(
            self.model,
            self.optimizer,
            MaskUpdater(),
            self.data,
            training=self.config.training,
            lr=0.0,  # a diverging loss would end the measurement
            seed=self.config.seed,
            epoch=0,
            runtime=self.runtime,
        )
        batch_size = self.config.training.batch_size
        return len(self.data.train) // batch_size * batch_size
