"""What every storage promises: a folder, a real object store, and a scheme that the program does not know."""

from __future__ import annotations

import os
import pickle
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count

import pytest

from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage import background
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import StageFolders, TrialFolder, archive_trial, longest_snapshot, newest_attempt
from tests.support.s3_server import KEY, SECRET
from trainables.errors import StaleAttemptError


@pytest.fixture
def storage(any_storage: Storage) -> Storage:
    return any_storage


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


def test_reader_never_meets_a_part_of_a_changing_file(storage: Storage) -> None:
    storage.write_json("file", {})
    ended = threading.Event()

    def rewrite() -> None:
        for number in count():
            storage.write_json("file", {"number": number, "text": "x" * (number % 3) * 1000})
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


def test_modified_returns_the_last_change_of_a_file(storage: Storage) -> None:
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


def test_files_are_all_files_below_a_folder_with_their_sizes(storage: Storage) -> None:
    for name, size in (
        ("trials/k/b", 3),
        ("trials/k/a", 0),
        ("trials/k/warmup/c", 5),
        ("trials/k/.hidden", 1),
        ("trials/k2/d", 2),
    ):
        storage.write(name, b"x" * size)
    listed = storage.files("trials/k")
    assert {name: one.bytes for name, one in listed.items()} == {
        "trials/k/.hidden": 1,
        "trials/k/a": 0,
        "trials/k/b": 3,
        "trials/k/warmup/c": 5,
    }
    assert list(listed) == sorted(listed)
    assert all(abs(one.modified - time.time()) < 30 for one in listed.values())
    assert storage.files("nothing") == {}


def test_a_removed_folder_is_gone_with_all_that_was_in_it(storage: Storage) -> None:
    for name in ("trials/k/a", "trials/k/warmup/b", "trials/k2/c"):
        storage.write(name, b"x")
    storage.remove_folder("trials/k")
    storage.remove_folder("trials/k")
    assert list(storage.files("trials")) == ["trials/k2/c"]
    assert storage.names("trials") == ["k2"]


def test_a_local_copy_has_the_name_and_the_content(storage: Storage) -> None:
    storage.write("trials/k/model.safetensors.zst", b"model")
    with storage.local_copy("trials/k/model.safetensors.zst") as file, storage.local_copy("trials/k/none") as none:
        assert none is None
        assert file is not None
        assert (file.name, file.read_bytes()) == ("model.safetensors.zst", b"model")


def test_storage_is_pickled_without_its_keys(storage: Storage) -> None:
    storage.write("file", b"content")
    sent = pickle.dumps(storage)
    assert not any(word.encode() in sent for word in (KEY, SECRET))
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read('file').decode())"
    done = subprocess.run([sys.executable, "-c", script], input=sent, capture_output=True, check=True)
    assert done.stdout == b"content\n"


def test_stale_attempt_publishes_and_removes_nothing(storage: Storage) -> None:
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


def test_attempt_gives_up_after_a_late_write(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = TrialFolder(storage, "k", 1, slow_write_grace_s=0.5), TrialFolder(storage, "k", 2)
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
    with pytest.raises(StaleAttemptError, match=r"attempt 2 has started.*its metrics\.jsonl was written late"):
        older.publish("metrics.jsonl", b"late")


def test_archive_trial_deletes_nothing_when_interrupted(storage: Storage) -> None:
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
    monkeypatch.setattr(background, "POLL_INTERVAL_S", 0.0)
    folders = StageFolders(storage, "s")
    one, other = folders.trial("k1", 1), folders.trial("k2", 1)
    assert not one.stop_requested()
    SweepFolder(storage, "s").request_stop("k1")
    assert (one.stop_requested(), other.stop_requested(), folders.stop_requested()) == (True, False, False)
    SweepFolder(storage, "s").request_stop()
    assert (other.stop_requested(), folders.stop_requested()) == (True, True)


def test_longest_snapshot_is_that_of_the_last_epoch(storage: Storage) -> None:
    assert longest_snapshot(storage, "k") is None
    for epoch, fingerprint in ((2, "f"), (10, "e"), (9, "f")):
        StageFolders(storage, "s").warmups("k", fingerprint).publish(epoch, b"content")
    storage.write("warmups/k/epoch-notes.txt", b"of a user")
    assert longest_snapshot(storage, "k") == "warmups/k/epoch-0010.e.safetensors"
    assert StageFolders(storage, "s").warmups("k", "f").epochs() == [2, 9]
