"""A prefix of an object store as a storage: `s3://` and `gs://` through pyarrow, which is imported when a file is asked for.

A file is one PUT of bytes that are there already, so nobody meets half of one, and no temporary names are needed. Requests cost
money and tens of milliseconds: `exists` is one HEAD, `read` a GET between two HEADs. Keys come from where the store's own tools
look for them (environment, ~/.aws, the machine's role); they are never part of the URI, of a file or of what workers are sent.
`gs://` is written like `s3://` and was not run.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from orchestrator.storage.base import Storage, run_with_timeout
from orchestrator.storage.object_store_errors import explain
from orchestrator.uris import require_no_credentials
from trainables.errors import StorageError

POLL_INTERVAL_S = 2.0  # between two looks for a file that is waited for
POLL_TIMEOUT_S = 1.0  # that a look is waited for
APPEND_INTERVAL_S = 5.0  # between two writes of a text that grows
FLUSH_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 20.0  # without a byte
MAX_ATTEMPTS = 5  # of a request, with growing pauses: some seconds where nothing listens
GCS_RETRY_TIMEOUT_S = 30.0
READER_THREADS = 16


class ObjectStorage(Storage):
    """Files below BUCKET/PREFIX. Where the store is travels with it; the keys each process finds for itself."""

    def __init__(self, root: str, endpoint: str | None = None, region: str | None = None) -> None:
        parts = urlsplit(root)
        self.root = root
        self.kind = parts.scheme
        self.bucket = parts.netloc
        self.prefix = parts.path.strip("/")
        self.endpoint = endpoint
        self.region = region
        self._filesystem: Any = None
        self._poller = _ExistencePoller(self)
        self._texts: dict[str, _BufferedAppend] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectStorage, (self.root, self.endpoint, self.region)

    def validate(self) -> None:
        """A bucket that is not there looks like a file that is not there, so it is asked for by itself."""
        from pyarrow.fs import FileType

        with self._translate_errors():
            found = self.filesystem.get_file_info(self.bucket)
        if found.type == FileType.NotFound:
            raise self._storage_error(OSError("NO_SUCH_BUCKET"))

    def read(self, name: str, offset: int = 0) -> bytes | None:
        """Between asking for the size and reading the file may be replaced, and what is read be cut: then it is read again."""
        path = self._path(name)
        with self._translate_errors():
            try:
                while True:
                    with self.filesystem.open_input_file(path) as file:
                        file.seek(min(offset, file.size()))
                        content = bytes(file.read())
                        with self.filesystem.open_input_file(path) as now:
                            if now.metadata() == file.metadata():
                                return content
            except FileNotFoundError:
                return None

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Side by side, since a store takes long to answer and answers many at once."""
        with ThreadPoolExecutor(READER_THREADS) as readers:
            return list(readers.map(self.read, names))

    def write(self, name: str, content: bytes, before_publish: Callable[[], None] = lambda: None) -> None:
        """One PUT; files beyond 5 MB go in parts that the store puts together at the end."""
        before_publish()
        with self._translate_errors():
            file = self.filesystem.open_output_stream(self._path(name), compression=None)  # else it goes by the name
            file.write(content)  # not in a `with`: leaving it after an exception would publish what was sent by then
            file.close()

    def append(self, name: str, text: str) -> None:
        if name not in self._texts:
            self._texts[name] = _BufferedAppend(self, name)
        self._texts[name].add(text)

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
        return self._poller.poll_exists(name)

    def names(self, folder: str) -> list[str]:
        return sorted(name for name in (Path(info.path).name for info in self._listed(folder)) if not name.startswith("."))

    def modified(self, name: str) -> float:
        with self._translate_errors():
            found = self.filesystem.get_file_info(self._path(name))
        return found.mtime.timestamp() if found.mtime else 0.0

    def move_folder(self, source: str, target: str) -> None:
        """Copies first, then deletes; may be done again after it was cut off."""
        from pyarrow.fs import FileType

        files = [info.path for info in self._listed(source, recursive=True) if info.type == FileType.File]
        begin = len(self._path(source))
        with self._translate_errors():
            for file in files:
                self.filesystem.copy_file(file, self._path(target) + file[begin:])
            self.filesystem.delete_dir(self._path(source))

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
            self._filesystem = _s3(self.endpoint, self.region) if self.kind == "s3" else _gcs(self.endpoint)
        return self._filesystem

    def _path(self, name: str) -> str:
        return "/".join(part for part in (self.bucket, self.prefix, name) if part)

    def _listed(self, folder: str, recursive: bool = False) -> list[Any]:
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
        """The same refusal with its reason: the answer to a HEAD has none, that to a listing does."""
        if "No response body" not in str(error):
            return error
        from pyarrow.fs import FileSelector

        try:
            self.filesystem.get_file_info(FileSelector(self._path("sweeps"), allow_not_found=True))
        except OSError as reason:
            return reason
        return error

    def _storage_error(self, error: OSError) -> StorageError:
        endpoint = self.endpoint or ("AWS" if self.kind == "s3" else "Google Cloud Storage")
        return StorageError(f"storage {self.root}: {explain(str(error), self.bucket, endpoint, self.region)}")

    def find_region(self) -> None:
        """Asks AWS for the bucket's region where nothing tells it."""
        if self.kind == "s3" and self.region is None:
            from pyarrow.fs import resolve_s3_region

            with self._translate_errors():
                self.region = resolve_s3_region(self.bucket)


class _ExistencePoller:
    """Looks for files that are waited for, one at a time and from a thread, so that a store that hangs holds nobody up."""

    def __init__(self, storage: ObjectStorage) -> None:
        self.storage = storage
        self.there: set[str] = set()
        self.looked: dict[str, float] = {}
        self.thread: threading.Thread | None = None

    def poll_exists(self, name: str) -> bool:
        """What cannot be seen for now has not appeared: whoever writes next will hear of the trouble."""
        due = time.monotonic() - self.looked.get(name, -POLL_INTERVAL_S) >= POLL_INTERVAL_S
        if due and not (self.thread and self.thread.is_alive()):
            self.thread = threading.Thread(target=self._look, args=(name,), name="lookout", daemon=True)
            self.thread.start()
            self.thread.join(POLL_TIMEOUT_S)
        return name in self.there

    def _look(self, name: str) -> None:
        with suppress(StorageError):
            (self.there.add if self.storage.exists(name) else self.there.discard)(name)
        self.looked[name] = time.monotonic()


class _BufferedAppend:
    """A text that an object store cannot append to: kept here after what was there before, and written as a whole."""

    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self.storage = storage
        self.name = name
        self.before: bytes | None = None
        self.text = ""
        self.sent = 0
        self.lock = threading.Lock()
        self.sending = threading.Lock()
        self.timer: threading.Timer | None = None

    def add(self, text: str) -> None:
        with self.lock:
            self.text += text
            if self.timer is None:
                self.timer = threading.Timer(APPEND_INTERVAL_S, self.send)
                self.timer.daemon = True
                self.timer.start()

    def send(self) -> None:
        """Puts all of it in place; where that fails, the next one does."""
        with self.sending:
            with self.lock:
                text, self.timer = self.text, None
            if len(text) == self.sent:
                return
            with suppress(StorageError):
                if self.before is None:
                    self.before = self.storage.read(self.name) or b""
                self.storage.write(self.name, self.before + text.encode())
                self.sent = len(text)


def object_storage(uri: str) -> ObjectStorage:
    """The storage at s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, with where its store is.

    That is told by the query of the URI (endpoint_override, scheme, region), else by the variables AWS_ENDPOINT_URL_S3 or
    AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION; the region of a bucket on AWS is asked for where nothing tells it.

    Raises:
        UserError: the URI is none of these forms, or holds a login.
        StorageError: the region had to be asked for, and nobody answers.
    """
    require_no_credentials("storage", uri, storage=True)
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    storage = ObjectStorage(uri, _endpoint(parts.scheme, options), options.get("region"))
    if storage.region is None:
        storage.region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if storage.region is None and storage.endpoint:
        storage.region = "us-east-1"  # what a store that has none expects
    storage.find_region()
    return storage


def _endpoint(kind: str, options: dict[str, str]) -> str | None:
    """The address of a store that is not the provider's own, as scheme://host:port."""
    given = options.get("endpoint_override")
    if given is None and kind == "s3":
        given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not given:
        return None
    return given.rstrip("/") if "://" in given else f"{options.get('scheme', 'https')}://{given}"


def _s3(endpoint: str | None, region: str | None) -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    scheme, _, host = (endpoint or "https://").partition("://")
    return S3FileSystem(
        endpoint_override=host or None,
        scheme=scheme,
        region=region,
        allow_bucket_creation=False,
        allow_delayed_open=True,  # one PUT instead of three requests
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=MAX_ATTEMPTS),
    )


def _gcs(endpoint: str | None) -> Any:
    from pyarrow.fs import GcsFileSystem

    scheme, _, host = (endpoint or "https://").partition("://")
    return GcsFileSystem(endpoint_override=host or None, scheme=scheme, retry_time_limit=timedelta(seconds=GCS_RETRY_TIMEOUT_S))
