"""What every storage promises, on a folder and on a real object store; what object stores cost and how they fail."""

from __future__ import annotations

import fcntl
import os
import pickle
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from orchestrator.errors import SetupError, UserError
from orchestrator.execution.driver import make_queue
from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.state import driver_lease, state_writer
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.state_writer import StateWriter
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage import layout, object_store
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import StageFolders, TrialFolder, archive_trial, newest_attempt, stop_files
from orchestrator.storage.object_store import ObjectStorage
from tests.support.cli import drive_sweep, tiny_sweep, wait_for
from tests.support.s3_server import BUCKET, KEY, SECRET, ObjectStore, s3_server
from tests.support.trials import tiny_config, tiny_settings
from tests.test_architecture import loaded_after
from trainables.config.keys import canonical
from trainables.errors import StaleAttemptError, StorageError
from trainables.worker.trainable import Stage, execute_stage


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with s3_server(tmp_path_factory.mktemp("objects")) as running:
        yield running


@pytest.fixture
def s3(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    storage = open_storage(f"s3://{BUCKET}/{secrets.token_hex(4)}/runs", create=True)
    assert isinstance(storage, ObjectStorage)
    return storage


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(str(tmp_path / "runs"), create=True)
    found: ObjectStorage = request.getfixturevalue("s3")
    return found


def key_of(storage: ObjectStorage, name: str) -> str:
    return f"{storage.prefix}/{name}"


# Every storage


def test_a_file_is_read_as_it_was_written_last_from_any_byte_on(storage: Storage) -> None:
    assert storage.read("a/b/file") is None
    assert not storage.exists("a/b/file")
    storage.write("a/b/file", b"first")
    storage.write("a/b/file", b"second")
    assert storage.exists("a/b/file")
    assert not storage.exists("a/b")
    assert [storage.read("a/b/file", offset) for offset in (0, 3, 6, 9)] == [b"second", b"ond", b"", b""]
    storage.write("a/b/file", b"")
    assert storage.read("a/b/file") == b""


def test_a_file_of_many_parts_comes_back_whole(storage: Storage) -> None:
    content = secrets.token_bytes(11_000_000)
    storage.write("large", content)
    assert storage.read("large") == content


def test_a_reader_never_meets_a_part_of_a_file_that_grows_and_shrinks(storage: Storage) -> None:
    storage.write_json("file", "")
    ended = threading.Event()

    def rewrite() -> None:
        for number in count():
            storage.write_json("file", [number, "x" * (number % 3) * 1000])
            if ended.is_set():
                return

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        assert None not in [storage.read_json("file") for _ in range(100)]
    finally:
        ended.set()
        writer.join()


def test_many_files_are_read_in_their_order(storage: Storage) -> None:
    for number in range(40):
        storage.write_json(f"many/{number}", number)
    assert storage.read_all_json([f"many/{number}" for number in (*range(40), 99)]) == [*range(40), None]


def test_a_write_that_is_called_off_leaves_what_was_there(storage: Storage) -> None:
    def refuse() -> None:
        raise StaleAttemptError("late")

    storage.write("folder/file", b"old")
    for name in ("folder/file", "folder/new"):
        with pytest.raises(StaleAttemptError):
            storage.write(name, b"new", before_publish=refuse)
    assert storage.read("folder/file") == b"old"
    assert storage.names("folder") == ["file"]
    if storage.folder:
        assert os.listdir(storage.folder / "folder") == ["file"]  # nor a part under another name


def test_names_are_the_children_of_a_folder_alone(storage: Storage) -> None:
    for name in (
        "trials/k2/result.json",
        "trials/k1/result.json",
        "trials/k1/warmup/epoch-0001",
        "trials/.aside/k0/x",
        "trial",
    ):
        storage.write(name, b"x")
    assert storage.names("trials") == ["k1", "k2"]
    assert storage.names("trials/k1") == ["result.json", "warmup"]
    assert storage.names("nothing") == []


def test_what_is_removed_is_gone_and_may_be_removed_again(storage: Storage) -> None:
    storage.write("folder/one", b"1")
    storage.write("folder/two", b"2")
    storage.remove("folder/one")
    storage.remove("folder/one")
    storage.remove("folder/none")
    assert storage.read("folder/one") is None
    assert storage.names("folder") == ["two"]


def test_the_last_change_of_a_file_is_told(storage: Storage) -> None:
    assert storage.modified("file") == 0.0
    storage.write("file", b"x")
    assert abs(storage.modified("file") - time.time()) < 30


def test_an_appended_text_grows_beyond_its_process(storage: Storage) -> None:
    for line in ("one\n", "zwei ä\n"):
        storage.append("sweeps/s/sweep.log", line)
    storage.flush()
    assert storage.read("sweeps/s/sweep.log") == "one\nzwei ä\n".encode()
    later: Storage = pickle.loads(pickle.dumps(storage))
    later.append("sweeps/s/sweep.log", "three\n")
    later.flush()
    later.flush()
    assert storage.read("sweeps/s/sweep.log", 4) == "zwei ä\nthree\n".encode()


def test_a_folder_is_moved_with_all_that_is_in_it(storage: Storage) -> None:
    for name in ("a", "sub/b"):
        storage.write(f"from/{name}", name.encode())
    storage.write("fromage", b"stays")
    storage.move_folder("from", "aside/to")
    assert storage.names("from") == []
    assert [storage.read(f"aside/to/{name}") for name in ("a", "sub/b")] == [b"a", b"sub/b"]
    assert storage.read("fromage") == b"stays"


def test_a_local_copy_has_the_name_and_the_content(storage: Storage) -> None:
    storage.write("trials/k/model.safetensors.zst", b"model")
    with storage.local_copy("trials/k/model.safetensors.zst") as file, storage.local_copy("trials/k/none") as none:
        assert none is None
        assert file is not None
        assert (file.name, file.read_bytes()) == ("model.safetensors.zst", b"model")


def test_a_copy_in_another_process_reads_the_same_without_its_key_on_the_way(storage: Storage) -> None:
    storage.write("file", b"content")
    sent = pickle.dumps(storage)
    assert not any(word.encode() in sent for word in (KEY, SECRET))
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read('file').decode())"
    done = subprocess.run([sys.executable, "-c", script], input=sent, capture_output=True, check=True)
    assert done.stdout == b"content\n"


def test_an_older_attempt_publishes_and_removes_nothing_once_a_newer_has_begun(storage: Storage) -> None:
    older, newer = TrialFolder(storage, "k", 1), TrialFolder(storage, "k", 2)
    older.claim_attempt()
    older.publish("checkpoint", b"old")
    newer.claim_attempt()
    attempts: list[Callable[[], None]] = [
        lambda: older.publish("checkpoint", b"late"),
        lambda: older.remove("checkpoint"),
        older.claim_attempt,
    ]
    for late in attempts:
        with pytest.raises(StaleAttemptError):
            late()
    assert newer.read("checkpoint") == b"old"


def test_an_attempt_whose_writing_came_late_gives_up(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SLOW_WRITE_GRACE_S", 0.5)
    older, newer = TrialFolder(storage, "k", 1), TrialFolder(storage, "k", 2)
    write = type(storage).write

    def frozen(storage: Storage, name: str, content: bytes, before_publish: Callable[[], None] = lambda: None) -> None:
        before_publish()
        if content == b"late":  # between the comparison and the end of the writing
            time.sleep(0.6)
            newer.claim_attempt()
        write(storage, name, content)

    older.claim_attempt()
    monkeypatch.setattr(type(storage), "write", frozen)
    older.publish("metrics.jsonl", b"in time")
    with pytest.raises(StaleAttemptError, match=r"attempt 2 has begun.*its metrics\.jsonl was written late"):
        older.publish("metrics.jsonl", b"late")


def test_setting_a_trial_aside_deletes_nothing_even_where_that_was_cut_off_before(storage: Storage) -> None:
    storage.write("trials/.aside/k-1/result.json", b"of an attempt that was counted again")
    for content in (b"first", b"second"):
        files = TrialFolder(storage, "k", newest_attempt(storage, "k") + 1)
        files.claim_attempt()
        files.publish("result.json", content)
        archive_trial(storage, "k")
        assert storage.names("trials/k") == ["attempt.json"]
    archive_trial(storage, "k")  # nothing but the count
    kept = [storage.read(f"trials/.aside/{name}/result.json") for name in ("k-1", "k-2", "k-3")]
    assert kept == [b"of an attempt that was counted again", b"first", b"second"]
    assert newest_attempt(storage, "k") == 5


def test_a_request_to_stop_reaches_the_trials_of_its_sweep(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "POLL_INTERVAL_S", 0.0)
    folders = StageFolders(storage, "s")
    one, other = folders.trial("k1", 1), folders.trial("k2", 1)
    assert not one.stop_requested()
    SweepFolder(storage, "s").request_stop("k1")
    assert (one.stop_requested(), other.stop_requested(), folders.stop_requested()) == (True, False, False)
    SweepFolder(storage, "s").request_stop()
    assert (other.stop_requested(), folders.stop_requested()) == (True, True)


# One driver


@pytest.fixture
def quick_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_lease, "LEASE_SETTLE_S", 0.5)
    monkeypatch.setattr(driver_lease, "LEASE_RENEW_INTERVAL_S", 0.5)


@pytest.fixture
def without_locks(storage: Storage, quick_claims: None, monkeypatch: pytest.MonkeyPatch) -> Storage:
    def no_locks(file: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    return storage


def test_only_one_of_several_drivers_that_start_together_holds_the_sweep_without_locks(without_locks: Storage) -> None:
    folder, told, ready = SweepFolder(without_locks, "s"), [], threading.Barrier(3)

    def drive() -> None:
        ready.wait()
        try:
            with folder.driver_lease():
                told.append("held")
                time.sleep(3)
        except SetupError as error:
            told.append(str(error))

    drivers = [threading.Thread(target=drive) for _ in range(3)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert sorted(told)[0] == "held"
    assert all(f"being run by process {os.getpid()} on" in line for line in sorted(told)[1:])
    with folder.driver_lease():
        pass


def test_a_claim_counts_as_long_as_its_driver_is_heard_of(without_locks: Storage) -> None:
    folder, claim = SweepFolder(without_locks, "s"), "sweeps/s/driver.json"
    elsewhere = this_driver() | {"host": "elsewhere", "process_table": "another", "owner": "other"}
    without_locks.write_json(claim, elsewhere)
    with pytest.raises(SetupError, match=r"on elsewhere, heard of \d+ s ago"), folder.driver_lease():
        pass
    without_locks.write_json(claim, elsewhere | {"heartbeat": time.time() - 31})
    with folder.driver_lease():
        assert without_locks.read_json(claim)["pid"] == os.getpid()
    assert without_locks.read(claim) is None


def test_a_driver_that_was_taken_over_ends_at_once(s3: ObjectStorage) -> None:
    script = (
        "import sys, time\nfrom orchestrator.state import driver_lease\n"
        "from orchestrator.state.sweep_folder import SweepFolder\n"
        "from orchestrator.storage.factory import open_storage\ndriver_lease.LEASE_RENEW_INTERVAL_S = 0.2\n"
        "with SweepFolder(open_storage(sys.argv[1]), 's').driver_lease():\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", script, s3.root], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "held\n"
    beats = {s3.read_json("sweeps/s/driver.json")["heartbeat"]}
    wait_for(lambda: s3.read_json("sweeps/s/driver.json")["heartbeat"] not in beats)  # it is renewed
    late = this_driver() | {"owner": "other"}
    s3.write_json("sweeps/s/driver.json", late)  # once, as by a write that was late: it is put right
    wait_for(lambda: s3.read_json("sweeps/s/driver.json")["owner"] != "other", timeout_s=20)
    time.sleep(0.5)
    assert driver.poll() is None
    while driver.poll() is None:  # a living one holds on to it
        s3.write_json("sweeps/s/driver.json", late)
    _, error = driver.communicate(timeout=30)
    assert driver.returncode == 3
    assert f"process {os.getpid()} on" in error
    assert "has taken the sweep over" in error


def test_a_claim_that_was_written_late_gives_way_to_one_that_was_there(
    s3: ObjectStorage, quick_claims: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first writing takes longer than CLAIM_S, and lands on the claim of a driver that came meanwhile."""
    monkeypatch.setattr(driver_lease, "LEASE_RENEW_INTERVAL_S", 1.5)
    slow, told = ObjectStorage(s3.root, s3.endpoint, s3.region), list[str]()
    prompt = slow.write_json

    def late(name: str, content: object) -> None:
        winner.start()
        wait_for(lambda: told == ["held"])
        slow.write_json = prompt  # type: ignore[method-assign]
        slow.write_json(name, content)

    def win() -> None:
        with SweepFolder(s3, "s").driver_lease():
            told.append("held")
            ended.wait(30)
        told.append("ended in its own time")

    winner, ended = threading.Thread(target=win), threading.Event()
    slow.write_json = late  # type: ignore[method-assign]
    try:
        with pytest.raises(SetupError, match="being run by"), SweepFolder(slow, "s").driver_lease():
            pass
    finally:
        ended.set()
        winner.join()
    assert told == ["held", "ended in its own time"]


def test_a_claim_of_another_is_not_given_back(s3: ObjectStorage, quick_claims: None, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, other = "sweeps/s/driver.json", this_driver() | {"owner": "other"}
    monkeypatch.setattr(driver_lease, "LEASE_RENEW_INTERVAL_S", 60.0)
    with SweepFolder(s3, "s").driver_lease():
        s3.write_json(claim, other)
    assert s3.read_json(claim) == other


# What an object store is asked for


def test_a_write_is_one_put_a_look_one_head_and_no_folder_is_made(s3: ObjectStorage, store: ObjectStore) -> None:
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


def test_workers_look_for_a_request_to_stop_now_and_then(s3: ObjectStorage, store: ObjectStore) -> None:
    files = StageFolders(s3, "s").trial("k", 1)
    since = store.now
    assert not any(files.stop_requested() for _ in range(500))
    time.sleep(0.2)
    assert len(store.requests(since)) <= 2 * len(stop_files("s", "k"))


def test_a_growing_text_is_written_within_seconds_and_seldom(
    s3: ObjectStorage, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "APPEND_INTERVAL_S", 0.5)
    since = store.now
    for number in range(100):
        s3.append("log", f"{number}\n")
    wait_for(lambda: (s3.read("log") or b"").endswith(b"99\n"), timeout_s=10)
    assert [method for method, path in store.requests(since) if method == "PUT"] == ["PUT"]


def test_a_folder_is_opened_without_pyarrow(tmp_path: Path) -> None:
    code = (
        f"from orchestrator.storage.factory import open_storage\nopen_storage({str(tmp_path)!r}, create=True)\ntell('folder')"
    )
    assert loaded_after(code, ("pyarrow", "boto3")) == {"folder": []}


# Where it is, and how it fails


def test_a_file_uri_is_a_folder(tmp_path: Path) -> None:
    assert open_storage(f"file://{tmp_path}/runs", create=True).folder == tmp_path / "runs"
    assert (tmp_path / "runs" / "storage.json").exists()


def test_the_uri_may_tell_where_the_store_is(store: ObjectStore, s3: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.write("file", b"content")
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    address = store.endpoint.removeprefix("http://").replace(":", "%3A")
    told = open_storage(f"{s3.root}?endpoint_override={address}&scheme=http&region=us-east-1")
    assert told.read("file") == b"content"
    copied: Storage = pickle.loads(pickle.dumps(told))
    assert copied.read("file") == b"content"


@pytest.mark.parametrize(
    ("uri", "said"),
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
def test_a_uri_that_is_no_storage_is_refused_without_telling_its_key(uri: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        open_storage(uri)
    assert "password" not in str(refused.value)


def refusal(uri: str, create: bool = False) -> str:
    """What is said about a storage that cannot be used, within seconds."""
    begun = time.monotonic()
    with pytest.raises(SetupError) as refused:
        open_storage(uri, create=create)
    assert time.monotonic() - begun < 30
    return str(refused.value)


@pytest.mark.parametrize("create", [False, True])
def test_a_bucket_that_is_not_there_is_named(s3: ObjectStorage, store: ObjectStore, create: bool) -> None:
    said = refusal("s3://nowhere/runs", create)
    assert said.startswith(f"storage s3://nowhere/runs: there is no bucket 'nowhere' at {store.endpoint}; make it, or give")


def test_a_store_that_does_not_answer_is_named(s3: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert "nothing answers at http://127.0.0.1:9; is the address right (AWS_ENDPOINT_URL" in refusal(s3.root)


def test_refused_keys_and_missing_rights_are_told_apart(
    s3: ObjectStorage, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
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
    assert not any(SECRET in said for said in (unknown, denied, wrong))


def test_a_command_on_a_lost_storage_ends_with_3_and_says_so(store: ObjectStore) -> None:
    lost = store.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    answer = drive_sweep("status", "s", "--storage", f"s3://{BUCKET}/runs", expect=3, environment=lost)
    assert answer.stderr.startswith(f"drive-sweep: storage s3://{BUCKET}/runs: nothing answers at http://127.0.0.1:9;")
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
def lost(monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    """A storage whose store has gone, and which is quick to give up."""
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 1)
    return ObjectStorage(f"s3://{BUCKET}/runs", "http://127.0.0.1:9", "us-east-1")


def test_a_stage_whose_storage_is_lost_says_so_and_is_no_failure_of_its_trial(lost: ObjectStorage) -> None:
    stage = Stage(kind="trial", key="k", name="n", config=canonical(tiny_config()), attempt=1)
    told = execute_stage(stage, tiny_settings(StageFolders(lost, "s")), lambda report: None)
    assert told["status"] == "storage"
    assert "nothing answers at http://127.0.0.1:9" in told["message"]
    assert told["log"] == []


def test_a_driver_goes_on_while_its_storage_is_lost(lost: ObjectStorage, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        lost.read("file")
    plan = make_plan(load_spec(str(tiny_sweep(tmp_path))), open_storage(str(tmp_path / "runs")))
    queue = make_queue(plan, lost, lambda key: True)
    assert queue.next_entry() is None
    assert not queue.done
    assert not lost.poll_exists("sweeps/s/stop")
    SweepFolder(lost, "s").log("a line")
    lost.flush()
    writer = StateWriter(SweepFolder(lost, "s"), SweepState(sweep="s"))
    writer.start()
    writer.close()
    assert "state.json cannot be written: storage s3://lab/runs: nothing answers" in str(writer.state.tracking_error)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    """A storage whose store takes every request and answers none, until it goes at the end."""
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 1)
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield ObjectStorage(f"s3://{BUCKET}/runs", f"http://127.0.0.1:{server.getsockname()[1]}", "us-east-1")
    for thread in set(threading.enumerate()) - before:
        thread.join(30)


def test_a_driver_waits_seconds_where_its_storage_hangs(hanging: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (object_store, "FLUSH_TIMEOUT_S"),
        (state_writer, "CLOSE_TIMEOUT_S"),
        (driver_lease, "RELEASE_TIMEOUT_S"),
    ):
        monkeypatch.setattr(module, name, 0.5)
    monkeypatch.setattr(StateWriter, "start", lambda writer: writer._thread.start())  # begins in the middle
    hanging.append("sweeps/s/sweep.log", "a line\n")
    writer = StateWriter(SweepFolder(hanging, "s"), SweepState(sweep="s"))
    claim = driver_lease._Lease(hanging, "sweeps/s/driver.json", this_driver, lambda driver: True)
    monkeypatch.setattr(driver_lease, "LEASE_RENEW_INTERVAL_S", 0.1)
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
        begun = time.monotonic()
        act()
        assert time.monotonic() - begun < 4, name
