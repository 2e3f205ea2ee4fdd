"""A storage that can take no more is one kind of error, on real small disks and on a store that says so by HTTP."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator.storage import full_storage, s3
from orchestrator.storage.full_storage import storage_error
from orchestrator.storage.layout import TrialFolder, WarmupFolder
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.s3 import S3Storage
from tests.support.small_disks import SmallDisk, small_disk
from trainables.errors import FailureKind, StorageError, StorageFullError, kind_of

KEY = "0123456789abcdef"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", kibibytes=256) as mounted:
        yield mounted


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_full_disk_is_its_own_kind_and_leaves_the_earlier_file(disk: SmallDisk) -> None:
    storage = LocalStorage(str(disk.folder / "runs"))
    storage.write("trials/a/checkpoint", b"earlier")
    with pytest.raises(StorageFullError, match=r"trials/a/checkpoint cannot be written: No space left on device") as raised:
        storage.write("trials/a/checkpoint", bytes(300 * 1024))
    assert kind_of(raised.value) is FailureKind.STORAGE_FULL
    assert storage.read("trials/a/checkpoint") == b"earlier"
    assert files(disk.folder) == {"checkpoint"}
    disk.fill()
    with pytest.raises(StorageFullError):
        storage.append_durably("decisions.jsonl", "a line\n")


def test_a_read_only_disk_is_the_same_kind(disk: SmallDisk) -> None:
    storage = LocalStorage(str(disk.folder))
    storage.write("a", b"earlier")
    disk.make_read_only()
    with pytest.raises(StorageFullError, match="Read-only file system"):
        storage.write("a", b"later")
    with pytest.raises(StorageFullError, match="Read-only file system"):
        storage.remove("a")
    with pytest.raises(StorageFullError, match="Read-only file system"):
        storage.append("log", "line")
    assert storage.read("a") == b"earlier"


@pytest.mark.parametrize(
    ("number", "is_full"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, True), (errno.EIO, False), (errno.EACCES, False)],
)
def test_which_errors_of_a_system_mean_a_full_storage(number: int, is_full: bool) -> None:
    error = storage_error("x cannot be written", OSError(number, "reason"))
    assert isinstance(error, StorageFullError) is is_full
    assert error.message == "x cannot be written: reason"


def test_a_writer_of_a_trial_waits_once_for_room(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_storage, "GRACE_S", 0.3)
    storage = LocalStorage(str(disk.folder))
    trial, warmup = TrialFolder(storage, KEY, 1), WarmupFolder(storage, f"warmups/{KEY}", "f")
    trial.claim_attempt()
    disk.fill()
    started = time.monotonic()
    with pytest.raises(StorageFullError):
        trial.publish("checkpoint", bytes(8192))
    assert 0.3 <= time.monotonic() - started < 0.6
    threading.Timer(0.1, (disk.folder / "filler").unlink).start()
    warmup.publish(1, bytes(8192))
    assert warmup.epochs() == [1]


class FullStore(BaseHTTPRequestHandler):
    """Answers each request as a store without room does."""

    status, code = 507, "XMinioStorageFull"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = f"<Error><Code>{self.code}</Code><Message>no room</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.mark.server
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (507, "XMinioStorageFull", StorageFullError),
        (403, "QuotaExceeded", StorageFullError),
        (403, "AccessDenied", StorageError),
    ],
)
def test_an_object_store_without_room_is_the_same_kind(
    status: int, code: str, kind: type[StorageError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MAX_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    handler = type("Handler", (FullStore,), {"status": status, "code": code})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        storage = S3Storage("s3://bucket/runs", f"http://127.0.0.1:{server.server_port}", "us-east-1")
        with pytest.raises(StorageError) as raised:
            storage.write("a", b"content")
    finally:
        server.shutdown()
        server.server_close()
    assert type(raised.value) is kind
    assert ("it can take no more" in raised.value.message) is (kind is StorageFullError)
