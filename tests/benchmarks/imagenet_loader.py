"""How fast ImageNet's images reach the trainer, by stage and by number of loaders, and what memory that takes.

    python -m tests.benchmarks.imagenet_loader

It writes ImageNet's layout with 100 classes x 20 training images at full size into a temporary folder. Stages are timed in one
thread on files in the page cache; with loaders, whole epochs are timed, the start of the loaders included.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from tests.benchmarks.imagenet_pictures import write_imagenet
from trainables.config.trial import DatasetConfig
from trainables.data import datasets
from trainables.data.decoding import rgb_image
from trainables.data.prescaled import needed_bytes, prescaled_images
from trainables.data.source import DatasetSource
from trainables.data.splits import Split, load_data
from trainables.data.streaming import CHUNK, center_crop, random_resized_crop, scaled_size, shorter_side
from trainables.runtime.cache_folder import VARIABLE
from trainables.runtime.machine import processor_name, processors

SIDE, BATCH = 224, 256
LOADERS = (0, 1, 2, 4)
IMAGENET = 1_281_167 + 50_000  # images
JPEG_QUALITY = 90
CONFIGS = {"files": DatasetConfig(name="imagenet"), "prescaled": DatasetConfig(name="imagenet", prescaled=True)}


class Ready(Dataset[Any]):
    """Crops that cost nothing to make: what is left is their way from a loader to the trainer."""

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks

    def __len__(self) -> int:
        return self.chunks

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros((CHUNK, 3, SIDE, SIDE), dtype=torch.uint8)


def rate(work: Callable[[Any], object], items: list[Any]) -> float:
    """Items per second of one core."""
    started = time.process_time()
    for item in items:
        work(item)
    return len(items) / (time.process_time() - started)


def stages(root: Path, names: list[str], device: str) -> Iterator[tuple[str, float]]:
    """Images per second of each stage; the transfers by wall clock, since several processes take part."""
    paths = [root / name for name in names]
    rate(Path.read_bytes, paths)  # into the page cache
    yield "read", rate(Path.read_bytes, paths)
    yield "decode (PIL)", rate(rgb_image, paths)
    encoded = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in paths]
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except (ImportError, OSError):
        pass
    else:
        yield "decode (torchvision)", rate(lambda content: decode_jpeg(content, ImageReadMode.RGB), encoded)
        same = sum(
            np.array_equal(decode_jpeg(content, ImageReadMode.RGB).permute(1, 2, 0).numpy(), np.asarray(rgb_image(path)))
            for content, path in zip(encoded, paths, strict=True)
        )
        print(f"PIL and torchvision decode {same} of {len(paths)} files to the same pixels")
    images = [rgb_image(path) for path in paths]
    yield "crop for training", rate(lambda image: np.asarray(random_resized_crop(image, SIDE, 1, True)), images)
    yield "crop for evaluation", rate(lambda image: np.asarray(center_crop(image, SIDE)), images)
    crop, batch = np.asarray(center_crop(images[0], SIDE)), np.empty((3, SIDE, SIDE), dtype=np.uint8)
    yield "to channels first", rate(lambda _: np.copyto(batch, crop.transpose(2, 0, 1)), images)

    small = [image.resize(scaled_size(image.size, shorter_side(SIDE)), Image.Resampling.BILINEAR) for image in images]
    yield "prescaled: crop for training", rate(lambda image: np.asarray(random_resized_crop(image, SIDE, 1, True)), small)
    yield "prescaled: crop for evaluation", rate(lambda image: np.asarray(center_crop(image, SIDE)), small)
    jpegs = [jpeg(image) for image in small]
    yield "prescaled as JPEG: decode", rate(lambda content: Image.open(io.BytesIO(content)).convert("RGB"), jpegs)
    print(f"prescaled as JPEG of quality {JPEG_QUALITY}: {sum(map(len, jpegs)) / len(jpegs) / 1000:.0f} kB an image")
    chunks = 64
    started = time.perf_counter()
    for _ in DataLoader(Ready(chunks), batch_size=None, num_workers=1, prefetch_factor=4):
        pass
    yield "loader -> trainer", chunks * CHUNK / (time.perf_counter() - started)
    if device == "cuda":
        pinned = torch.zeros((BATCH, 3, SIDE, SIDE), dtype=torch.uint8).pin_memory()
        pinned.to(device)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(20):
            pinned.to(device, non_blocking=True)
        torch.cuda.synchronize()
        yield "trainer -> device", 20 * BATCH / (time.perf_counter() - started)


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


@dataclass(kw_only=True)
class Peak:
    """The most memory in MiB: of this process, of its loaders, and handed over by shared memory."""

    trainer: float = 0.0
    loaders: float = 0.0
    shared: float = 0.0


@contextmanager
def watched() -> Iterator[Peak]:
    """Memory while the block runs, every 50 ms; what is shared, beyond what the machine shared before."""
    peak, stop, before = Peak(), threading.Event(), _shared_mib()

    def watch() -> None:
        while not stop.wait(0.05):
            peak.trainer = max(peak.trainer, _own_mib(os.getpid()))
            peak.loaders = max(peak.loaders, sum(map(_own_mib, _children())))
            peak.shared = max(peak.shared, _shared_mib() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _children() -> list[int]:
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def _own_mib(pid: int) -> float:
    """Memory without files; a page that processes share since a fork counts for each by its part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1024


def _shared_mib() -> float:
    """Of the machine: segments that are handed over have no name, so no process can be asked."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Shmem:"))
    return int(line.split()[1]) / 1024


def epoch(split: Split, training: bool) -> tuple[float, str]:
    """Images per second of an epoch, and the digest of its pixels, which is taken outside of the time."""
    digest = hashlib.sha256()
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).split(BATCH)
    generator = torch.Generator().manual_seed(1)
    started, hashing = time.perf_counter(), 0.0
    for images, _ in split.augmented(order, True, generator) if training else split.batches(order):
        before = time.perf_counter()
        digest.update(images.cpu().numpy().tobytes())
        hashing += time.perf_counter() - before
    return len(split) / (time.perf_counter() - started - hashing), digest.hexdigest()[:16]


def throughput(root: Path, kind: str, device: str) -> None:
    """Prints images per second for every number of loaders, and that they have the same pixels."""
    digests: dict[bool, set[str]] = {True: set(), False: set()}
    for loaders in LOADERS:
        split = _split(root, kind, device, loaders)
        rates = {}
        for training in (True, False):
            rates[training], digest = epoch(split, training)
            digests[training].add(digest)
        print(f"{kind}, {loaders} loaders: training {rates[True]:.0f}, evaluation {rates[False]:.0f} images/s", flush=True)
    assert all(len(found) == 1 for found in digests.values()), f"the pixels depend on the loaders: {digests}"
    (training_digest,), (evaluation_digest,) = digests[True], digests[False]
    print(f"{kind}: same bits for {', '.join(map(str, LOADERS))} loaders: {training_digest}, {evaluation_digest}")


def _split(root: Path, kind: str, device: str, loaders: int) -> Split:
    """The training split, with so many loaders on any device."""
    split = load_data(CONFIGS[kind], DatasetSource(name="imagenet", root=str(root)), device).train
    assert split.stream is not None
    return replace(split, stream=replace(split.stream, workers=loaders))


def memory(root: Path, kind: str, share: float, device: str) -> None:
    """Prints the peak memory of an epoch over a share of the images."""
    torch.set_num_threads(1)
    split = _split(root, kind, device, 2)
    part = split.first(round(share * len(split)))
    with watched() as peak:
        epoch(part, True)
    print(
        f"{kind}, {len(part)} images, 2 loaders: trainer {peak.trainer:.0f} MiB, loaders {peak.loaders:.0f} MiB, "
        f"shared {peak.shared:.0f} MiB",
        flush=True,
    )


def loader_start(root: Path, device: str) -> None:
    """Prints what the start and the end of loaders take in every epoch."""
    for loaders in LOADERS[1:]:
        few = _split(root, "prescaled", device, loaders).first(CHUNK)
        # One chunk occupies one loader; the stream starts no more loaders than there are chunks.
        order = [torch.arange(1) for _ in range(loaders)]
        assert few.stream is not None
        started = time.perf_counter()
        for _ in few.stream.batches(order):
            pass
        print(f"{loaders} loaders start and end in {time.perf_counter() - started:.2f} s")


def build(root: Path) -> None:
    """Prints what the cache takes."""
    index = datasets.file_index(DatasetSource(name="imagenet", root=str(root)))
    needed = needed_bytes(index.root, index.train, shorter_side(SIDE))
    started, used = time.perf_counter(), time.process_time()
    kept = prescaled_images(index.root, index.train, SIDE)
    images, seconds, core_seconds = len(index.train), time.perf_counter() - started, time.process_time() - used
    print(
        f"prescaled images: {needed / images / 1000:.0f} kB each, {needed / images * IMAGENET / 1e9:.0f} GB for ImageNet; "
        f"written at {images / seconds:.0f} images/s, {IMAGENET / images * core_seconds / 3600:.1f} core hours in all"
    )
    print(f"prescaled: read and check: {rate(kept.image, list(range(images))):,.0f} images/s per core", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="the loader of ImageNet")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = str(Path(folder, "cache"))
        root = Path(folder, "imagenet")
        size = write_imagenet(root, options.classes, options.per_class, 2)
        print(f"{processor_name()}, {processors()} processors; files of {size / 1000:.0f} kB", flush=True)
        names = datasets.file_index(DatasetSource(name="imagenet", root=str(root))).train
        for stage, images in stages(root, names[:: max(1, len(names) // 300)], options.device):
            print(f"{stage}: {images:,.0f} images/s per core", flush=True)
        build(root)
        loader_start(root, options.device)
        for kind in CONFIGS:
            throughput(root, kind, options.device)
            for share in (0.25, 1.0):  # each in a fresh process, whose heap holds nothing else
                process = get_context("spawn").Process(target=memory, args=(root, kind, share, options.device))
                process.start()
                process.join()


if __name__ == "__main__":
    main()
