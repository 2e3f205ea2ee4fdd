"""A trial that needs more memory than there is: classed as out of memory, and its process and device serve the next attempt.

The memory is limited here: on a GPU the share of this process in the device, on a CPU the address space.
"""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from tests.gpu.images import write_images
from tests.gpu.rows import Bench, Row, checked
from tests.gpu.trials import TrialGround, small_config
from trainables.config.trial import TrainingConfig
from trainables.errors import FailureKind, kind_of
from trainables.records.file_names import ERROR
from trainables.runtime.device import Runtime
from trainables.runtime.json_text import parse_json
from trainables.wording import one_line, shortened

ROOM = 96 << 20  # bytes beyond what is in use; ResNet-18 on a batch of 256 x 32 x 32 pixels takes more than ten times as much
BATCH = 256


def measure(bench: Bench) -> Iterator[Row]:
    images = write_images(bench.folder, 32, train=BATCH * 5 // 4, test=20)  # a fifth is for validation
    ground = TrialGround(folder=bench.folder / "trials", images=images, runtime=Runtime(device=bench.device))
    large = small_config(images, model="resnet18", warmup_epochs=0, training=TrainingConfig(epochs=1, batch_size=BATCH))
    small = replace(large, model="convnet", training=TrainingConfig(epochs=1, batch_size=20))
    before = ground.run(small)
    error: BaseException | None = None
    try:
        with little_memory(bench.device):
            ground.run(large)
    except Exception as raised:
        error = raised.with_traceback(None)
    kind = None if error is None else kind_of(error)
    text = "no error" if error is None else shortened(f"{type(error).__name__}: {one_line(error)}")
    yield checked("too little memory", kind is FailureKind.OUT_OF_MEMORY, f"is kind {FailureKind.OUT_OF_MEMORY}", text)
    record = parse_json(ground.files(large).read(ERROR) or b"{}")
    yield checked("its error.json", record.get("kind") == FailureKind.OUT_OF_MEMORY, "says so", str(record.get("kind")))
    again = TrialGround(folder=bench.folder / "again", images=images, runtime=ground.runtime).run(small)
    yield checked(
        "the next trial of the process", again["model_sha256"] == before["model_sha256"], "has the bits of one before"
    )


@contextmanager
def little_memory(device: str) -> Iterator[None]:
    """Inside, this process can have about ROOM more bytes than it has."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        share = (torch.cuda.memory_reserved() + ROOM) / torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(share)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.empty_cache()
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
