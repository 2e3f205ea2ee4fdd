"""The data set on the node where a stage runs: its own files if they are the planned ones, else the decoded images, shipped.

A node may have no such folder, or another copy than the one that the sweep was planned with; neither is a fault of the trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from trainables.data import datasets
from trainables.data.datasets import STREAMED, DatasetSource, cache_lock
from trainables.data.repeatability import OtherImagesError
from trainables.errors import ConfigError, DataError, WrongNodeError
from trainables.runtime.cache_folder import cache_folder, write_whole

Ship = Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class StagedDataset:
    """The data set that a sweep was planned with, to be found on any node.

    Attributes:
        digest: of its content; None accepts whatever lies at the source's folder.
        signature: of the files on the driver's host. A node with the same signature reads the same files and hashes nothing.
        ship: the decoded data set as a file's content, from where the data is. Raises DataError if it cannot be had.
    """

    source: DatasetSource
    digest: str | None = None
    signature: str | None = None
    ship: Ship | None = None

    def here(self) -> DatasetSource:
        """Where this node has the planned images.

        Raises:
            WrongNodeError: it has other files or none, or cannot read them, and they are not shipped; or it cannot keep them.
        """
        if self.digest is None:
            return self.source
        try:
            with _this_nodes_trouble(self.source):
                _require_planned(self.source, self.digest, self.signature)
        except WrongNodeError as error:
            with _this_nodes_trouble(self.source):
                return replace(self.source, decoded=str(self._shipped(self.digest, str(error))))
        return self.source

    def prepare(self) -> DatasetSource:
        """The same, with the images decoded into the node's cache.

        A data function that returns others here than where the sweep was planned counts as data that are not here.

        Raises:
            WrongNodeError: as above, or it cannot read all files or write its cache.
            DataError: a file cannot be decoded.
        """
        source = self.here()
        if source.decoded is None and source.name not in STREAMED:
            with _this_nodes_trouble(source):
                if problem := _decode_once(source):
                    return replace(source, decoded=str(self._shipped(str(self.digest), problem)))
        return source

    def _shipped(self, digest: str, problem: str) -> Path:
        """The node's copy of the decoded data set, fetched once per node."""
        if self.ship is None:
            raise WrongNodeError(problem)
        content = self.source.arrays_digest or digest
        name = f"{self.source.name.replace(':', '-')}-{self.source.image_size or 'whole'}-{content}"
        cache = cache_folder() / f"{name}.safetensors"
        with cache_lock(cache):
            if not cache.exists():
                try:
                    shipped = self.ship()
                except DataError as error:
                    raise WrongNodeError(f"{problem} ({error})") from error
                write_whole(cache, shipped)
        return cache


@contextmanager
def _this_nodes_trouble(source: DatasetSource) -> Iterator[None]:
    """Turns what the node's disks refuse into a WrongNodeError: another node may well read and write."""
    try:
        yield
    except OSError as error:
        place = error.filename or source.root or "its cache"
        raise WrongNodeError(
            f"{source.name} cannot be read or kept there: {place}: {error.strerror or error}; repair it, or take the node out "
            "of the cluster"
        ) from error


@lru_cache(maxsize=2)
def _decode_once(source: DatasetSource) -> str:
    """A look at every file, which no process takes before each of its stages; says why the images are not the planned ones."""
    try:
        datasets.decoded_file(source)
    except OtherImagesError as error:
        return str(error)
    return ""


@lru_cache(maxsize=2)
def _require_planned(source: DatasetSource, digest: str, planned_signature: str | None) -> None:
    """Raises WrongNodeError unless this node's own files are the planned ones; found once, they count for the process.

    Of a streamed data set it is enough that its folders are there: it has a million files.
    """
    try:
        datasets.download_if_missing(source)
        if source.name in STREAMED or (signature := datasets.signature(source)) == planned_signature:
            return
        record = cache_folder() / f"{signature}.digest"
        with cache_lock(record):
            if not record.exists():
                write_whole(record, datasets.content_digest(source).encode())
    except (DataError, ConfigError) as error:
        raise WrongNodeError(str(error)) from error
    found = record.read_text()
    if found != digest:
        raise WrongNodeError(
            f"dataset.root: {source.root!r} must hold the files that the sweep was planned with (digest {digest}), got others "
            f"(digest {found}); give this node the same files"
        )
