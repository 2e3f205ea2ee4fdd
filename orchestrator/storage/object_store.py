"""A prefix of an object store as a storage, through pyarrow, which is imported at the first request.

A file is one PUT of its whole content, so no reader sees half of one, and no temporary names are needed. Requests
cost money and tens of milliseconds: `exists` is one HEAD, `read` a GET between two HEADs. Keys are never part of the URI, of a
file or of what workers are sent. Each provider has a file of its own, such as s3.py.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from orchestrator.storage.background import BufferedAppend, ExistencePoller, run_with_timeout
from orchestrator.storage.base import FileInfo, Storage
from orchestrator.storage.object_store_errors import FULL, NO_SUCH_BUCKET, ErrorRule, explain
from trainables.errors import StorageError

FLUSH_TIMEOUT_S = 5.0
READER_THREADS = 16


class ObjectStorage(Storage):
    """Files below BUCKET/PREFIX. The address of the store travels with it; the keys each process finds for itself.

    Attributes:
        provider: the store at no other endpoint, for messages.
        error_rules: what the provider's errors mean; the first one that fits counts.
        endpoint: address of a store that is not the provider's own, as scheme://host:port.
    """

    provider: ClassVar[str]
    error_rules: ClassVar[tuple[ErrorRule, ...]]

    def __init__(self, root: str, endpoint: str | None = None, region: str | None = None) -> None:
        parts = urlsplit(root)
        self.root = root
        self.bucket = parts.netloc
        self.prefix = parts.path.strip("/")
        self.endpoint = endpoint
        self.region = region
        self._filesystem: Any = None
        self._poller = ExistencePoller(self)
        self._texts: dict[str, BufferedAppend] = {}
        self._durable_texts: dict[str, bytes] = {}

    @classmethod
    def open(cls, uri: str) -> Self:
        """The storage at the URI; endpoint and region come from its query, else from where the provider keeps them.

        Raises:
            StorageError: the region had to be asked for, and there is no answer.
        """
        options = dict(parse_qsl(urlsplit(uri).query, keep_blank_values=True))
        storage = cls(uri, cls._endpoint(options), options.get("region"))
        storage._find_region()
        return storage

    @classmethod
    def _endpoint(cls, options: dict[str, str]) -> str | None:
        host = options.get("endpoint_override", cls._default_endpoint())
        if not host:
            return None
        return host.rstrip("/") if "://" in host else f"{options.get('scheme', 'https')}://{host}"

    @classmethod
    def _default_endpoint(cls) -> str:
        """The endpoint of URIs that name none; empty for the provider's own."""
        return ""

    def _find_region(self) -> None:
        """Completes the region; nothing, for stores that are not divided into regions."""

    @abstractmethod
    def _connect(self, scheme: str, host: str | None) -> Any:
        """The pyarrow file system, at the provider's own endpoint if `host` is None."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.root, self.endpoint, self.region)

    def validate(self) -> None:
        """A missing bucket looks like a missing file, so this asks for the bucket itself."""
        from pyarrow.fs import FileType

        with self._translate_errors():
            bucket = self.filesystem.get_file_info(self.bucket)
        if bucket.type == FileType.NotFound:
            raise self._storage_error(OSError(NO_SUCH_BUCKET.codes[0]))

    def read(self, name: str, offset: int = 0) -> bytes | None:
        """Reads again if the file was replaced between the question for its size and the reading, which may cut the content."""
        with self._translate_errors(), suppress(FileNotFoundError):
            while (content := self._read_unchanged(self._path(name), offset)) is None:
                continue
            return content
        return None

    def _read_unchanged(self, path: str, offset: int) -> bytes | None:
        """The content, or None if the file was replaced meanwhile."""
        with self.filesystem.open_input_file(path) as file:
            start = min(offset, file.size())
            file.seek(start)
            content = bytes(file.read(self.bytes_to_read(path, file.size() - start)))
            with self.filesystem.open_input_file(path) as now:
                return content if now.metadata() == file.metadata() else None

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Reads in parallel, since a store is slow to answer and answers many requests at once."""
        with ThreadPoolExecutor(READER_THREADS) as readers:
            return list(readers.map(self.read, names))

    def write(self, name: str, content: bytes, before_publish: Callable[[], None] = lambda: None) -> None:
        """One PUT; files beyond 5 MB go in parts, which the store joins at the end."""
        before_publish()
        with self._translate_errors():
            file = self.filesystem.open_output_stream(self._path(name), compression=None)  # else it depends on the name
            file.write(content)  # not in a `with`, which would publish a part of it after an exception
            file.close()

    def append(self, name: str, text: str) -> None:
        if name not in self._texts:
            self._texts[name] = BufferedAppend(self, name)
        self._texts[name].add(text)

    def append_durably(self, name: str, text: str) -> None:
        if name not in self._durable_texts:
            before = self.read(name) or b""
            self._durable_texts[name] = before[: before.rfind(b"\n") + 1]
        content = self._durable_texts[name] + text.encode()
        self.write(name, content)
        self._durable_texts[name] = content

    def flush(self) -> None:
        for text in list(self._texts.values()):
            run_with_timeout(FLUSH_TIMEOUT_S, text.send)

    def remove(self, name: str) -> None:
        """Leaves, as pyarrow does, an empty object named like the folder; `names` does not show it."""
        with self._translate_errors(), suppress(FileNotFoundError):
            self.filesystem.delete_file(self._path(name))

    def exists(self, name: str) -> bool:
        with self._translate_errors():
            try:
                # Not get_file_info: it lists the bucket where a HEAD finds nothing, for it might be a folder.
                self.filesystem.open_input_file(self._path(name)).close()
            except FileNotFoundError:
                return False
        return True

    def poll_exists(self, name: str) -> bool:
        return self._poller.exists(name)

    def names(self, folder: str) -> list[str]:
        names = [Path(info.path).name for info in self._list(folder)]
        return sorted(name for name in names if not name.startswith("."))

    def files(self, folder: str) -> dict[str, FileInfo]:
        from pyarrow.fs import FileType

        root = f"{self._path('')}/"
        entries = [one for one in self._list(folder, recursive=True) if one.type == FileType.File]
        return {
            one.path.removeprefix(root): FileInfo(one.size, one.mtime.timestamp() if one.mtime else 0.0)
            for one in sorted(entries, key=lambda one: str(one.path))
        }

    def modified(self, name: str) -> float:
        with self._translate_errors():
            info = self.filesystem.get_file_info(self._path(name))
        return info.mtime.timestamp() if info.mtime else 0.0

    def move_folder(self, source: str, target: str) -> None:
        """Copies first, then deletes, so that it can be repeated after an interruption."""
        from pyarrow.fs import FileType

        files = [info.path for info in self._list(source, recursive=True) if info.type == FileType.File]
        with self._translate_errors():
            for file in files:
                self.filesystem.copy_file(file, self._path(target) + file.removeprefix(self._path(source)))
            self.filesystem.delete_dir(self._path(source))

    def remove_folder(self, folder: str) -> None:
        with self._translate_errors(), suppress(FileNotFoundError):
            self.filesystem.delete_dir(self._path(folder))

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path | None]:
        content = self.read(name)
        if content is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="drive-sweep-") as folder:
            file = Path(folder, Path(name).name)
            file.write_bytes(content)
            yield file

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool | None]:
        yield None

    @property
    def filesystem(self) -> Any:
        """The pyarrow file system of this process."""
        if self._filesystem is None:
            scheme, _, host = (self.endpoint or "https://").partition("://")
            self._filesystem = self._connect(scheme, host or None)
        return self._filesystem

    def _path(self, name: str) -> str:
        return "/".join(part for part in (self.bucket, self.prefix, name) if part)

    def _list(self, folder: str, recursive: bool = False) -> list[Any]:
        from pyarrow.fs import FileSelector

        with self._translate_errors():
            selector = FileSelector(self._path(folder), recursive=recursive, allow_not_found=True)
            return list(self.filesystem.get_file_info(selector))

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise self._storage_error(self._with_reason(error)) from error

    def _with_reason(self, error: OSError) -> OSError:
        """The error itself, or one that says more about the same problem."""
        return error

    def _storage_error(self, error: OSError) -> StorageError:
        facts = {"bucket": self.bucket, "endpoint": self.endpoint or self.provider, "region": self.region}
        return explain(str(error), (FULL, *self.error_rules), f"storage {self.root}", **facts)
