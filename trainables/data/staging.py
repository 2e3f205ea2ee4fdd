"""The data set on the node where a stage runs: its own files if they are the planned ones, else images of the driver's node.

A node may lack the data set's folder, or have other files in it than the sweep was planned with; neither is a fault of the
trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from trainables.data import datasets
from trainables.data.datasets import cache_lock
from trainables.data.repeatability import ChangedArraysError
from trainables.data.source import DatasetSource
from trainables.data.table import dataset_of
from trainables.errors import ConfigError, DataError, TrialError, WrongNodeError
from trainables.runtime.cache_folder import VARIABLE, cache_folder
from trainables.runtime.files import atomic_write

Fetch = Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class StagedDataset:
    """The data set that a sweep was planned with, to be located on any node.

    Attributes:
        digest: of its content; None accepts any files in the source's folder.
        signature: of the files on the driver's host. A node with the same signature reads the same files and hashes nothing.
        fetch: the decoded data set as the content of a file, from the node that has the data. Raises DataError on failure.
    """

    source: DatasetSource
    digest: str | None = None
    signature: str | None = None
    fetch: Fetch | None = None

    def locate(self) -> DatasetSource:
        """The source from which this node reads the planned images.

        Raises:
            WrongNodeError: its files are missing, unreadable or others, and no images can be fetched or cached.
        """
        if self.digest is None:
            return self.source
        try:
            with _as_wrong_node_error(self.source):
                _require_planned(self.source, self.digest, self.signature)
        except WrongNodeError as error:
            with _as_wrong_node_error(self.source):
                return replace(self.source, decoded=str(self._fetched(self.digest, error)))
        return self.source

    def prepare(self) -> DatasetSource:
        """The same, with the images decoded into the node's cache.

        If a data function returns other arrays here than on the driver's host, those of the driver are fetched.

        Raises:
            WrongNodeError: as above, or it cannot read all files or write its cache.
            DataError: a file cannot be decoded.
        """
        source = self.locate()
        if source.decoded is None and not dataset_of(source.name).is_streamed:
            with _as_wrong_node_error(source):
                if changed := _decode_once(source):
                    return replace(source, decoded=str(self._fetched(str(self.digest), changed)))
        return source

    def _fetched(self, digest: str, problem: TrialError) -> Path:
        """The node's copy of the decoded data set, fetched once per node; raises the problem where nothing can be fetched."""
        if self.fetch is None:
            raise WrongNodeError(problem.message, problem.hint)
        content = self.source.arrays_digest or digest
        name = f"{self.source.name.replace(':', '-')}-{self.source.image_size or 'whole'}-{content}"
        cache = cache_folder() / f"{name}.safetensors"
        with cache_lock(cache):
            if not cache.exists():
                try:
                    fetched = self.fetch()
                except DataError as error:
                    hints = "; ".join(filter(None, (problem.hint, error.hint)))
                    raise WrongNodeError(f"{problem.message} ({error.message})", hints) from error
                with atomic_write(cache) as partial:
                    partial.write_bytes(fetched)
        return cache


@contextmanager
def _as_wrong_node_error(source: DatasetSource) -> Iterator[None]:
    """Turns errors of the node's disks into a WrongNodeError, since another node may be able to read and write."""
    try:
        yield
    except OSError as error:
        path = error.filename or source.root or "its cache"
        raise WrongNodeError(
            f"{source.name} cannot be read or kept there: {path}: {error.strerror or error}",
            f"free space there, name another cache with {VARIABLE}, or take the node out of the cluster",
        ) from error


@lru_cache(maxsize=2)
def _decode_once(source: DatasetSource) -> ChangedArraysError | None:
    """Decodes the data set into the cache, once per process, since it looks at every file.

    Returns:
        The error of a data function that returns other arrays than on the driver's host.
    """
    try:
        datasets.decoded_file(source)
    except ChangedArraysError as error:
        return error
    return None


@lru_cache(maxsize=2)
def _require_planned(source: DatasetSource, digest: str, planned_signature: str | None) -> None:
    """Raises WrongNodeError unless this node's own files are the planned ones; a success counts for the whole process.

    Of a streamed data set only the folders are checked, since it has a million files.
    """
    try:
        datasets.download_if_missing(source)
        if dataset_of(source.name).is_streamed or (signature := datasets.signature(source)) == planned_signature:
            return
        record = cache_folder() / f"{signature}.digest"
        with cache_lock(record):
            if not record.exists():
                with atomic_write(record) as partial:
                    partial.write_bytes(datasets.content_digest(source).encode())
    except (DataError, ConfigError) as error:
        raise WrongNodeError(error.message, error.hint) from error
    local_digest = record.read_text()
    if local_digest != digest:
        raise WrongNodeError(
            f"dataset.root: {source.root!r} must hold the files that the sweep was planned with (digest {digest}), got others "
            f"(digest {local_digest})",
            "give this node the same files",
        )
