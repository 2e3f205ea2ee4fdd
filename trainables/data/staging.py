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
from trainables.data.datasets import STREAMED, Source, one_builder_at_a_time
from trainables.data.repeatability import OtherImagesError
from trainables.errors import DataError, MisplacedError, SettingError
from trainables.runtime.cache_folder import cache_folder, write_whole

Ship = Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class PlannedData:
    """The data set that a sweep was planned with, to be found on any node.

    Attributes:
        digest: of its content; None accepts whatever lies at the source's folder.
        signature: of the files on the driver's host. A node with the same signature reads the same files and hashes nothing.
        ship: the decoded data set as a file's content, from where the data is. Raises DataError if it cannot be had.
    """

    source: Source
    digest: str | None = None
    signature: str | None = None
    ship: Ship | None = None

    def here(self) -> Source:
        """Where this node has the planned images.

        Raises:
            MisplacedError: it has other files or none, or cannot read them, and they are not shipped; or it cannot keep them.
        """
        if self.digest is None:
            return self.source
        try:
            with _this_nodes_trouble(self.source):
                _require_planned(self.source, self.digest, self.signature)
        except MisplacedError as error:
            with _this_nodes_trouble(self.source):
                return replace(self.source, decoded=str(self._shipped(self.digest, str(error))))
        return self.source

    def prepare(self) -> Source:
        """The same, with the images decoded into the node's cache.

        A data function that returns others here than where the sweep was planned counts as data that are not here.

        Raises:
            MisplacedError: as above, or it cannot read all files or write its cache.
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
            raise MisplacedError(problem)
        content = self.source.arrays_digest or digest
        name = f"{self.source.name.replace(':', '-')}-{self.source.image_size or 'whole'}-{content}"
        cache = cache_folder() / f"{name}.safetensors"
        with one_builder_at_a_time(cache):
            if not cache.exists():
                try:
                    shipped = self.ship()
                except DataError as error:
                    raise MisplacedError(f"{problem} ({error})") from error
                write_whole(cache, shipped)
        return cache


@contextmanager
def _this_nodes_trouble(source: Source) -> Iterator[None]:
    """Turns what the node's disks refuse into a MisplacedError: another node may well read and write."""
    try:
        yield
    except OSError as error:
        place = error.filename or source.root or "its cache"
        raise MisplacedError(
            f"{source.name} cannot be read or kept there: {place}: {error.strerror or error}; repair it, or take the node out "
            "of the cluster"
        ) from error


@lru_cache(maxsize=2)
def _decode_once(source: Source) -> str:
    """A look at every file, which no process takes before each of its stages; says why the images are not the planned ones."""
    try:
        datasets.decoded_file(source)
    except OtherImagesError as error:
        return str(error)
    return ""


@lru_cache(maxsize=2)
def _require_planned(source: Source, digest: str, planned_signature: str | None) -> None:
    """Raises MisplacedError unless this node's own files are the planned ones; found once, they count for the process.

    Of a streamed data set it is enough that its folders are there: it has a million files.
    """
    try:
        datasets.ensure_present(source)
        if source.name in STREAMED or (signature := datasets.signature(source)) == planned_signature:
            return
        record = cache_folder() / f"{signature}.digest"
        with one_builder_at_a_time(record):
            if not record.exists():
                write_whole(record, datasets.content_digest(source).encode())
    except (DataError, SettingError) as error:
        raise MisplacedError(str(error)) from error
    found = record.read_text()
    if found != digest:
        raise MisplacedError(
            f"dataset.root: {source.root!r} must hold the files that the sweep was planned with (digest {digest}), got others "
            f"(digest {found}); give this node the same files"
        )
