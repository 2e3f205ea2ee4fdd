"""Worker nodes that lack something, as mount namespaces make them: another storage, a read-only one, no data. Needs root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ray_nodes import Node, RayNodes

SWEEP = """\
name: tiny
dataset: {{name: image_folder, root: {data}, image_size: 8}}
model: convnet
search: {{prune_iterations: [1, 5], seed: [0]}}
sparsity: 0.9
warmup_epochs: 0
training: {{epochs: {epochs}, batch_size: 50, lr: 0.1}}
precision: fp32
resources: {{device: cpu, cpus_per_trial: 1}}
checkpoint_seconds: 0
"""


def namespaces_work() -> bool:
    try:
        return subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode == 0
    except OSError:
        return False


def join(nodes: RayNodes, **options: Any) -> Node:
    """A new worker node; Ray gives a node 30 s to start, which is too little on a machine where much else runs."""
    for _ in range(3):
        with suppress(AssertionError):
            return nodes.add(**options)
    return nodes.add(**options)


def without(folder: Path) -> tuple[str, ...]:
    """Command before `ray start`: the node has an empty folder of its own there."""
    return _mounted('mount -t tmpfs none "$0"', folder)


def read_only(folder: Path) -> tuple[str, ...]:
    """Command before `ray start`: the node can only read the folder."""
    return _mounted('mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"', folder)


def _mounted(command: str, folder: Path) -> tuple[str, ...]:
    return ("unshare", "-m", "sh", "-c", f'{command} && exec "$@"', str(folder))


def digit_images(root: Path, train: int = 200, test: int = 50) -> Path:
    """Digits as an image folder."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if number < train + test:
            folder = root / ("train" if number < train else "test") / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15).astype("uint8")).convert("RGB").save(folder / f"{number}.png")
    return root


def sweep_of_images(folder: Path, data: Path, epochs: int = 2) -> Path:
    """A sweep file of two trials and a dense baseline on the images in `data`."""
    file = folder / "tiny.yaml"
    file.write_text(SWEEP.format(data=data, epochs=epochs))
    return file


@dataclass(frozen=True)
class Broken:
    """A cluster of four worker nodes, three of which lack something, and a sweep for it."""

    nodes: RayNodes
    storage: Path
    data: Path
    well: Node
    unshared: Node
    read_only: Node
    without_data: Node

    def options(self, folder: Path, epochs: int = 2) -> list[object]:
        """Of a command with the sweep on this cluster."""
        file = sweep_of_images(folder, self.data, epochs)
        return [file, "--storage", self.storage, "--address", self.nodes.gcs]


@contextmanager
def broken_cluster(root: Path) -> Iterator[Broken]:
    storage, data = root / "runs", digit_images(root / "data")
    storage.mkdir()
    with RayNodes() as nodes:
        yield Broken(
            nodes,
            storage,
            data,
            well=join(nodes, cpus=1, gpus=0),
            unshared=join(nodes, cpus=1, gpus=0, prefix=without(storage)),
            read_only=join(nodes, cpus=1, gpus=1, prefix=read_only(storage)),
            without_data=join(nodes, cpus=1, gpus=0, prefix=without(data)),
        )
