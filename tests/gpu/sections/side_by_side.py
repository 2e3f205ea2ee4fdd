"""Trials that share one device, each in a process: what they train together, and their memory against the prediction.

The prediction is that of `gpus_per_trial: auto` (orchestrator/execution/autotune.py): the peak of one probe, for each of them.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from tests.gpu.images import Images, write_images
from tests.gpu.rows import Bench, Row, checked, measured, not_run
from trainables.config.keys import canonical
from trainables.config.trial import TrainingConfig, TrialConfig
from trainables.data.staging import StagedDataset
from trainables.runtime.device import Runtime
from trainables.runtime.machine import peak_memory
from trainables.worker.probe import Probe

COUNTS = (1, 2, 4, 8)
NEW_PROCESSES_S = 10.0  # to start and to compute their first batches
PATIENCE_S = 120.0  # for one answer of a process, which imports PyTorch before its first
MARGIN = 1.10  # measured memory over predicted that the reserve of `auto`, a tenth of the device, still covers


class TrainedProbe(Probe):
    """A probe that trains whole epochs, as a trial does."""

    def whole_epochs(self, seconds: float) -> float:
        """Images trained per second, measured for so many seconds."""
        self.data = replace(self.data, train=self.whole.train)
        self._train()  # the first one of this size takes longer
        return self.images_per_second(seconds)


class Neighbour:
    """A process with a probe of one trial; it ends with this process, or when it is asked."""

    def __init__(self, config: TrialConfig, images: Images, runtime: Runtime) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, canonical(config), images, runtime)
        self.process = context.Process(target=answer_questions, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any) -> None:
        self.connection.send((method, arguments))

    def answer(self) -> Any:
        if not self.connection.poll(PATIENCE_S):
            raise TimeoutError(f"a process beside others gave no answer within {PATIENCE_S:g} s")
        answer = self.connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def answer_questions(connection: Connection, config: dict[str, Any], images: Images, runtime: Runtime) -> None:
    """Answers with what a method of the probe returns, or with its error, until nobody asks any more."""
    try:
        probe: Any = TrainedProbe(config, StagedDataset(source=images.source), runtime)
        while True:
            method, arguments = connection.recv()
            connection.send(peak_memory() if method == "peak_memory" else getattr(probe, method)(*arguments))
    except EOFError:
        return
    except Exception as error:
        connection.send(RuntimeError(f"{type(error).__name__}: {error}"))


def measure(bench: Bench) -> Iterator[Row]:
    counts, train, seconds = (COUNTS[:2], 512, 1.0) if bench.brief else (COUNTS, 25_600, 4.0)
    side, model, batch_size = (8, "convnet", 32) if bench.brief else (32, "resnet20", 128)
    images = write_images(bench.folder, side, train, test=1000)
    config = TrialConfig(dataset=images.config(), model=model, precision="auto", training=TrainingConfig(batch_size=batch_size))
    runtime = Runtime(device=bench.device, precision="fp32" if bench.brief else "bf16")
    foreign = device_bytes(bench.device)
    predicted, alone = 0, 0.0
    with ExitStack() as stack:
        neighbours: list[Neighbour] = []
        for count in counts:
            if not bench.brief and bench.left < seconds + NEW_PROCESSES_S:
                yield not_run(f"{count} side by side")
                continue
            new = [Neighbour(config, images, runtime) for _ in range(count - len(neighbours))]
            for neighbour in new:
                stack.callback(neighbour.end)
                neighbour.ask("measure_peak_memory")
            peaks = [neighbour.answer() for neighbour in new]
            predicted = predicted or peaks[0] - foreign
            neighbours += new
            total = sum(_all(neighbours, "whole_epochs", seconds))
            alone = alone or total
            label = f"{model} {count} side by side"
            yield measured(label, round(total), "images/s", note=f"{total / alone:.2f} of one; {os.cpu_count()} processors")
            taken = device_bytes(bench.device) - foreign if bench.device == "cuda" else sum(_all(neighbours, "peak_memory"))
            yield checked(
                f"{label}: memory",
                taken <= MARGIN * count * predicted,
                f"at most {MARGIN:g} times the prediction",
                f"{taken / 2**30:.2f} GiB of {count * predicted / 2**30:.2f} GiB predicted",
            )


def _all(neighbours: Sequence[Neighbour], method: str, *arguments: Any) -> list[Any]:
    for neighbour in neighbours:
        neighbour.ask(method, *arguments)
    return [neighbour.answer() for neighbour in neighbours]


def device_bytes(device: str) -> int:
    """Memory of the GPU in use by all processes, this one included; 0 on a CPU."""
    if device != "cuda":
        return 0
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free
