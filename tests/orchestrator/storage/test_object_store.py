"""Object stores: what is asked of them, what they cost, and how they fail."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.errors import SetupError, UserError
from orchestrator.execution.driver import make_queue
from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.state import state_writer
from orchestrator.state.driver_lease import LeaseTimes, _Lease
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.state_writer import StateWriter
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage import object_store
from orchestrator.storage import s3 as s3_module
from orchestrator.storage.background import BufferedAppend
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import StageFolders, stop_files
from orchestrator.storage.s3 import S3Storage
from tests.support.cli import drive_sweep, tiny_sweep, wait_for
from tests.support.s3_server import BUCKET, SECRET, ObjectStore
from tests.support.trials import tiny_config, tiny_settings
from tests.test_architecture import loaded_after
from trainables.config.keys import canonical
from trainables.errors import StorageError
from trainables.worker.stage import Stage
from trainables.worker.trainable import execute_stage


def key_of(storage: S3Storage, name: str) -> str:
    return f"{storage.prefix}/{name}"


# What an object store is asked for


def test_write_is_one_put_and_exists_one_head_without_folders(s3: S3Storage, store: ObjectStore) -> None:
    path = f"/{BUCKET}/{key_of(s3, 'a/b/file')}"
    expected: dict[str, tuple[Callable[[], object], list[tuple[str, str]]]] = {
        "write": (lambda: s3.write("a/b/file", b"content"), [("PUT", path)]),
        "exists": (lambda: s3.exists("a/b/file"), [("HEAD", path)]),
        "exists not": (lambda: s3.exists("a/b/none"), [("HEAD", path.replace("file", "none"))]),
        "read": (lambda: s3.read("a/b/file"), [("HEAD", path), ("GET", path), ("HEAD", path)]),
    }
    for name, (ask, requests) in expected.items():
        since = store.now
        ask()
        wait_for(lambda since=since, requests=requests: len(store.requests(since)) >= len(requests), timeout_s=5)
        assert store.requests(since) == requests, name
    assert set(store.objects(s3.prefix)) == {key_of(s3, "storage.json"), key_of(s3, "a/b/file")}


def test_workers_look_for_a_request_to_stop_now_and_then(s3: S3Storage, store: ObjectStore) -> None:
    files = StageFolders(s3, "s").trial("k", 1)
    since = store.now
    assert not any(files.stop_requested() for _ in range(500))
    time.sleep(0.2)
    assert len(store.requests(since)) <= 2 * len(stop_files("s", "k"))


def test_a_growing_text_is_written_within_seconds_and_seldom(s3: S3Storage, store: ObjectStore) -> None:
    log, since = BufferedAppend(s3, "log", interval_s=0.5), store.now
    for number in range(100):
        log.add(f"{number}\n")
    wait_for(lambda: (s3.read("log") or b"").endswith(b"99\n"), timeout_s=10)
    assert [method for method, path in store.requests(since) if method == "PUT"] == ["PUT"]


def test_a_folder_is_opened_without_pyarrow(tmp_path: Path) -> None:
    code = (
        f"from orchestrator.storage.factory import open_storage\nopen_storage({str(tmp_path)!r}, create=True)\nreport('folder')"
    )
    assert loaded_after(code, ("pyarrow", "boto3")) == {"folder": []}


# Where it is, and how it fails


def test_a_file_uri_is_a_folder(tmp_path: Path) -> None:
    assert open_storage(f"file://{tmp_path}/runs", create=True).folder == tmp_path / "runs"
    assert (tmp_path / "runs" / "storage.json").exists()


def test_uri_may_contain_the_endpoint_of_the_store(store: ObjectStore, s3: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.write("file", b"content")
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    address = store.endpoint.removeprefix("http://").replace(":", "%3A")
    storage = open_storage(f"{s3.root}?endpoint_override={address}&scheme=http&region=us-east-1")
    assert storage.read("file") == b"content"
    copied: Storage = pickle.loads(pickle.dumps(storage))
    assert copied.read("file") == b"content"


@pytest.mark.parametrize(
    ("uri", "pattern"),
    [
        ("s3://me:password@bucket/runs", r"got 's3://\.\.\.@bucket/runs'; write s3://bucket/runs"),
        (
            "s3://bucket/runs?acces_key=password",
            r"got 's3://bucket/runs\?\.\.\.'; remove 'acces_key' after '\?', where only endpoint_override, scheme, region",
        ),
        ("ftp://bucket/runs", "storage: must be a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX without"),
        ("s3:///runs", "must be a folder, s3://BUCKET/PREFIX or gs"),
    ],
)
def test_invalid_uri_is_rejected_without_showing_its_key(uri: str, pattern: str) -> None:
    with pytest.raises(UserError, match=pattern) as refused:
        open_storage(uri)
    assert "password" not in str(refused.value)


def refusal(uri: str, create: bool = False) -> str:
    """What is said about a storage that cannot be used, within seconds."""
    started_at = time.monotonic()
    with pytest.raises(SetupError) as refused:
        open_storage(uri, create=create)
    assert time.monotonic() - started_at < 30
    return str(refused.value)


@pytest.mark.parametrize("create", [False, True])
def test_a_bucket_that_is_not_there_is_named(s3: S3Storage, store: ObjectStore, create: bool) -> None:
    message = refusal("s3://nowhere/runs", create)
    assert message.startswith(
        f"storage s3://nowhere/runs: there is no bucket 'nowhere' at {store.endpoint}; create it, or give"
    )


def test_a_store_that_does_not_answer_is_named(s3: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert "cannot connect to http://127.0.0.1:9; is the address right (AWS_ENDPOINT_URL" in refusal(s3.root)


def test_rejected_keys_and_permissions_have_different_errors(
    s3: S3Storage, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.checking_keys() as nobody:
        unknown = refusal(s3.root)
        for name, value in nobody.items():
            monkeypatch.setenv(name, value)
        denied = refusal(s3.root)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        wrong = refusal(s3.root)
    assert "the access key is refused (INVALID_ACCESS_KEY_ID" in unknown
    assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in unknown
    assert "the access key is refused (SIGNATURE_DOES_NOT_MATCH" in wrong
    assert "no permission (ACCESS_DENIED" in denied
    assert not any(SECRET in message for message in (unknown, denied, wrong))


def test_a_command_on_a_lost_storage_ends_with_3_and_says_so(store: ObjectStore) -> None:
    lost = store.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    answer = drive_sweep("status", "s", "--storage", f"s3://{BUCKET}/runs", expect=3, environment=lost)
    assert answer.stderr.startswith(f"drive-sweep: storage s3://{BUCKET}/runs: cannot connect to http://127.0.0.1:9;")
    assert "Traceback" not in answer.stderr
    assert answer.seconds < 60


def test_an_object_store_needs_a_tracking_server(store: ObjectStore, tmp_path: Path) -> None:
    for command in ("plan", "run"):
        answer = drive_sweep(
            command, tiny_sweep(tmp_path), "--storage", f"s3://{BUCKET}/new", expect=2, environment=store.environment
        )
        assert "tracking.uri must be given" in answer.stderr
        assert "give --tracking-uri" in answer.stderr
    assert store.objects("new") == {}


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    """A storage whose store has gone, and which is quick to give up."""
    monkeypatch.setattr(s3_module, "MAX_ATTEMPTS", 1)
    return S3Storage(f"s3://{BUCKET}/runs", "http://127.0.0.1:9", "us-east-1")


def test_lost_storage_is_no_failure_of_the_trial(lost: S3Storage) -> None:
    stage = Stage(kind="trial", key="k", name="n", config=canonical(tiny_config()), attempt=1)
    report = execute_stage(stage, tiny_settings(StageFolders(lost, "s")), lambda report: None)
    assert report["status"] == "storage"
    assert "cannot connect to http://127.0.0.1:9" in report["message"]
    assert report["log"] == []


def test_a_driver_goes_on_while_its_storage_is_lost(lost: S3Storage, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        lost.read("file")
    plan = make_plan(load_spec(str(tiny_sweep(tmp_path))), open_storage(str(tmp_path / "runs")))
    queue = make_queue(plan, lost, lambda key: True)
    assert queue.next_stage() is None
    assert not queue.done
    assert not lost.poll_exists("sweeps/s/stop")
    SweepFolder(lost, "s").log("a line")
    lost.flush()
    writer = StateWriter(SweepFolder(lost, "s"), SweepState(sweep="s"))
    writer.start()
    writer.close()
    assert "state.json cannot be written: storage s3://lab/runs: cannot connect to" in str(writer.state.tracking_error)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Storage]:
    """A storage whose store takes every request and answers none, until it goes at the end."""
    monkeypatch.setattr(s3_module, "MAX_ATTEMPTS", 1)
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield S3Storage(f"s3://{BUCKET}/runs", f"http://127.0.0.1:{server.getsockname()[1]}", "us-east-1")
    for thread in set(threading.enumerate()) - before:
        thread.join(30)


@pytest.mark.server
def test_a_driver_waits_seconds_where_its_storage_hangs(hanging: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((object_store, "FLUSH_TIMEOUT_S"), (state_writer, "CLOSE_TIMEOUT_S")):
        monkeypatch.setattr(module, name, 0.5)
    monkeypatch.setattr(StateWriter, "start", lambda writer: writer._thread.start())  # begins in the middle
    hanging.append("sweeps/s/sweep.log", "a line\n")
    writer = StateWriter(SweepFolder(hanging, "s"), SweepState(sweep="s"))
    times = LeaseTimes(renew_interval_s=0.1, release_timeout_s=0.5)
    claim = _Lease(hanging, "sweeps/s/driver.json", this_driver, lambda driver: True, times)
    writer.start()
    claim.renewal.start()
    time.sleep(0.3)
    acts: dict[str, Callable[[], object]] = {
        "look": lambda: [hanging.poll_exists("sweeps/s/stop") for _ in range(100)],
        "flush": hanging.flush,
        "close": writer.close,
        "give back": claim.release,
    }
    for name, act in acts.items():
        started_at = time.monotonic()
        act()
        assert time.monotonic() - started_at < 4, name
