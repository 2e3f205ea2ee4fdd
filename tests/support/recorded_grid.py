"""A recorded grid: the validation accuracy after every sparse epoch of every trial of a sweep, for replays of a search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zstandard

from orchestrator.spec.grid import expand
from orchestrator.spec.loader import load_spec
from orchestrator.spec.ranges import Range
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from trainables.config.keys import canonical
from trainables.config.trial import TrialConfig
from trainables.records.metrics import points_from_lines

DATA = Path(__file__).parents[1] / "data"
METRIC = "val/accuracy"


@dataclass(frozen=True, kw_only=True)
class RecordedGrid:
    """The curves of a grid.

    Attributes:
        text: the sweep file that made it.
        axes: searched key -> values, in the order of the file.
        images: of the validation split; the curves count hits.
        curves: values of the axes, in their order -> hits after each sparse epoch.
        seconds: values of the axes -> seconds of the trial.
    """

    text: str
    axes: Mapping[str, tuple[Any, ...]]
    images: int
    curves: Mapping[tuple[Any, ...], tuple[int, ...]]
    seconds: Mapping[tuple[Any, ...], float]

    def spec(self) -> SweepSpec:
        return spec_of(self.text)

    def accuracy(self, point: tuple[Any, ...]) -> list[float]:
        """After each sparse epoch."""
        return [hits / self.images for hits in self.curves[point]]

    def to_bytes(self) -> bytes:
        points = list(product(*self.axes.values()))
        content = {
            "sweep_file": self.text,
            "axes": {key: list(values) for key, values in self.axes.items()},
            "images": self.images,
            "hits": [list(self.curves[point]) for point in points],
            "seconds": [round(self.seconds[point], 2) for point in points],
        }
        return zstandard.ZstdCompressor(level=19).compress(json.dumps(content, separators=(",", ":")).encode())


def spec_of(text: str) -> SweepSpec:
    """The specification in a sweep file's text."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        path.write_text(text)
        return load_spec(str(path))


def point_of(config: TrialConfig, axes: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of a trial on the axes, which are plain fields of its configuration."""
    return tuple(getattr(config, key) for key in axes)


def load_grid(name: str) -> RecordedGrid:
    """A grid of tests/data."""
    content = json.loads(zstandard.ZstdDecompressor().decompress((DATA / f"grid-{name}.json.zst").read_bytes()))
    axes = {key: tuple(values) for key, values in content["axes"].items()}
    points = list(product(*axes.values()))
    return RecordedGrid(
        text=content["sweep_file"],
        axes=axes,
        images=content["images"],
        curves={point: tuple(hits) for point, hits in zip(points, content["hits"], strict=True)},
        seconds=dict(zip(points, content["seconds"], strict=True)),
    )


def record(storage: Storage, text: str, images: int) -> RecordedGrid:
    """The grid of a finished sweep whose trials are in the storage."""
    spec = spec_of(text)
    configs = {json.dumps(canonical(config), sort_keys=True): config for config in expand(spec)}
    curves, seconds = {}, {}
    keys = storage.names("trials")
    for key, result in read_results(storage, keys)[0].items():
        config = configs.get(json.dumps(result["config"], sort_keys=True))
        if config is None:
            continue
        points = points_from_lines(storage.read(f"trials/{key}/metrics.jsonl") or b"")
        values = {point.step: point.value for point in points if point.key == METRIC}
        steps = range(config.warmup_epochs + 1, config.warmup_epochs + config.sparse_epochs + 1)
        hits = [values[step] * images for step in steps]
        if any(abs(hit - round(hit)) > 1e-6 for hit in hits):
            raise ValueError(f"the validation split has not {images} images")
        curves[point_of(config, spec.search)] = tuple(round(hit) for hit in hits)
        seconds[point_of(config, spec.search)] = result["metrics"]["cost/total_seconds"]
    missing = len(configs) - len(curves)
    if missing:
        raise ValueError(f"{missing} of {len(configs)} trials are not finished")
    return RecordedGrid(
        text=text,
        axes={key: tuple(axis) for key, axis in spec.search.items() if not isinstance(axis, Range)},
        images=images,
        curves=curves,
        seconds=seconds,
    )
