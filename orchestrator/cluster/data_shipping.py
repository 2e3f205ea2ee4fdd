"""Sends the decoded data set from the driver's node to nodes that have no data, through Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.planning.plan import Plan
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.data import datasets
from trainables.data.source import DatasetSource
from trainables.data.staging import StagedDataset
from trainables.data.table import dataset_of, image_side
from trainables.errors import DataError

MAX_FETCHED_BYTES = 256 << 20  # decoded CIFAR has 176 MiB; larger sets would evict other objects from a node's object store


class DatasetServer:
    """An actor on the driver's node that puts the decoded data set into Ray's object store at the first request."""

    def __init__(self, source: DatasetSource, config: TrialConfig, custom_files: CustomFiles) -> None:
        self.source, self.config, self.custom_files = source, config, custom_files
        self.references: list[Any] = []

    def decoded(self) -> list[Any]:
        """The reference, in a list so that Ray does not resolve it. Raises DataError if the data set is too large."""
        if not self.references:
            self.custom_files.import_modules(self.config)
            side, too_large = image_side(self.config.dataset), "it is too large to be sent through Ray"
            if side and len(datasets.files(self.source)) * 3 * side * side > MAX_FETCHED_BYTES:
                raise DataError(too_large)
            file = datasets.decoded_file(self.source)
            if file.stat().st_size > MAX_FETCHED_BYTES:
                raise DataError(too_large)
            self.references = [ray.put(file.read_bytes())]
        return self.references


@dataclass(frozen=True, kw_only=True)
class DatasetFetcher:
    """Fetches the decoded data set for the node that calls it (`StagedDataset.fetch`)."""

    server: Any

    def __call__(self) -> bytes:
        try:
            return bytes(ray.get(ray.get(self.server.decoded.remote())[0]))
        except ray.exceptions.RayTaskError as error:
            raise DataError(str(error.cause)) from error
        except ray.exceptions.RayError as error:
            raise DataError(f"the driver's node could not send it: {error}") from error


def planned_data(plan: Plan, local_ray: bool) -> StagedDataset:
    """The plan's data set for every node; on a remote cluster, nodes that lack it fetch it from the driver's."""
    source = plan.source
    dataset = dataset_of(source.name)
    streamed = dataset.is_streamed
    fetch = None
    if not (local_ray or streamed or dataset.digest is not None):
        driver_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, scheduling_strategy=driver_node)(DatasetServer)
        fetch = DatasetFetcher(server=actor.remote(source, plan.trials[0].config, plan.custom_files))
    signature = None if streamed else datasets.signature(source)
    return StagedDataset(source=source, digest=plan.data_digest, signature=signature, fetch=fetch)
