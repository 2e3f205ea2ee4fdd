"""A finished trial's record that is no longer what was written counts as none, is named, and heals to the same digest."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.state.trial_results import damaged_metrics, damaged_model, read_results
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import archive_trial, trial_file
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.records import read_record
from tests.support.trials import new_storage, run, tiny_config
from trainables.config.keys import trial_key
from trainables.data.digits import DIGITS_DIGEST
from trainables.records.file_names import ERROR, METRICS, MODEL, RESULT
from trainables.records.metrics import DamagedRecordError, points_from_lines
from trainables.records.result_record import decode_result, encode_result

CONFIG = tiny_config()
DIGESTS = ("record_sha256", "metrics_sha256", "model_file_sha256", "trial_key")
Damage = Callable[[bytes], bytes]


def flip(content: bytes, bit: int) -> bytes:
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


DAMAGES: dict[str, Damage] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: flip(content, 8 * content.index(b"0.") + 1),
    "foreign": lambda content: b"PK\x03\x04" + bytes(range(256)),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("finished")
    return root, run(CONFIG, new_storage(root))


@pytest.fixture
def storage(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> Storage:
    """A copy of a storage with one finished trial."""
    copy = new_storage(tmp_path)
    key = finished[1]["trial_key"]
    for name in (RESULT, METRICS, MODEL, "config.json", "attempt.json"):
        copy.write(trial_file(key, name), new_storage(finished[0]).read(trial_file(key, name)) or b"")
    return copy


def damaged(storage: Storage, file: str, damage: Damage) -> None:
    storage.write(file, damage(storage.read(file) or b""))


def as_written_before_digests(result: dict[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in result.items() if name not in DIGESTS}).encode()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", [RESULT, METRICS])
def test_damaged_record_is_named_and_recomputed(
    file: str, damage: str, storage: Storage, finished: tuple[Path, dict[str, Any]]
) -> None:
    key, digest = finished[1]["trial_key"], finished[1]["model_sha256"]
    damaged(storage, trial_file(key, file), DAMAGES[damage])
    results, problems = read_results(storage, [key])
    problems |= damaged_metrics(storage, results)
    assert problems.keys() == {key}
    assert problems[key].startswith(f"trials/{key}/{file} ")
    assert read_record(storage, "trial", key).damage.startswith(file)
    archive_trial(storage, key)
    assert run(CONFIG, storage, attempt=3)["model_sha256"] == digest


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign"])
def test_damaged_model_is_detected_with_and_without_digests(
    damage: str, storage: Storage, finished: tuple[Path, dict[str, Any]]
) -> None:
    result = finished[1]
    old = json.loads(as_written_before_digests(result))
    assert damaged_model(storage, result["trial_key"], result) == damaged_model(storage, result["trial_key"], old) == ""
    damaged(storage, trial_file(result["trial_key"], MODEL), DAMAGES[damage])
    for record in (result, old):
        assert damaged_model(storage, result["trial_key"], record).startswith(f"trials/{result['trial_key']}/{MODEL} ")
    storage.remove(trial_file(result["trial_key"], MODEL))
    assert damaged_model(storage, result["trial_key"], result).endswith("is gone")


def test_a_trial_computes_itself_anew_over_its_damaged_result(
    storage: Storage, finished: tuple[Path, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    key = finished[1]["trial_key"]
    damaged(storage, trial_file(key, RESULT), DAMAGES["flipped"])
    assert run(CONFIG, storage, attempt=2)["model_sha256"] == finished[1]["model_sha256"]
    assert "does not match its own SHA-256" in caplog.text
    assert read_results(storage, [key])[1] == {}


def test_the_record_of_another_trial_is_none(storage: Storage, finished: tuple[Path, dict[str, Any]]) -> None:
    other = trial_key(tiny_config(seed=1), "another")
    storage.write(trial_file(other, RESULT), storage.read(trial_file(finished[1]["trial_key"], RESULT)) or b"")
    _, problems = read_results(storage, [other])
    assert problems[other].endswith(f"is the record of trial {finished[1]['trial_key']}")


def test_records_from_before_there_were_digests_count(finished: tuple[Path, dict[str, Any]]) -> None:
    key = finished[1]["trial_key"]
    of_a_sweep = {
        "key": key,
        "warmup_key": "0" * 16,
        "revision": "abc",
        "sweep": "s",
        "data_digest": DIGITS_DIGEST,
        "own_digests": {},
    }
    for provenance in ({}, of_a_sweep, of_a_sweep | {"warmup_key": None}):
        old = as_written_before_digests(finished[1] | provenance)
        assert decode_result(old, key) == json.loads(old)
    with pytest.raises(DamagedRecordError, match="is the record of trial other"):
        decode_result(as_written_before_digests(finished[1] | {"key": "other"}), key)


@given(bit=st.integers(min_value=0))
def test_no_flipped_bit_of_a_result_is_accepted_as_another_value(bit: int, finished: tuple[Path, dict[str, Any]]) -> None:
    _, content = encode_result("0123456789abcdef", as_record(finished[1]), b"points", b"model")
    written = json.loads(content)
    with contextlib.suppress(DamagedRecordError):
        assert decode_result(flip(content, bit % (8 * len(content)))) == written


def as_record(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in DIGESTS}


@given(
    content=st.binary()
    | st.text().map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_other_content_of_a_record_raises_its_one_error(content: bytes) -> None:
    for reader in (decode_result, points_from_lines):
        with contextlib.suppress(DamagedRecordError):
            reader(content)


def test_a_damaged_error_leaves_the_words_of_the_driver(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    for damage in DAMAGES.values():
        whole = b'{"kind": "code", "message": "0.5", "traceback": "", "attempt": 1, "time": 1700000000003}'
        storage.write(trial_file("0" * 16, ERROR), damage(whole))
        record = read_record(storage, "trial", "0" * 16)
        assert record.error.get("time", 1700000000003) == 1700000000003


def test_a_foreign_snapshot_is_named(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    for content in (b"", b"foreign", b"\x05" + bytes(7) + b"[1,2]", bytes(64)):
        storage.write("warmups/abc/epoch-0002.f.safetensors", content)
        assert "is no snapshot" in read_record(storage, "warmup", "abc").damage


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"lay\x6eut": 1}', b'{"layout": 3}', b'{"layout": 1, "sha256": "0"}'])
def test_a_damaged_layout_is_written_anew(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_storage(str(tmp_path), create=True)
    whole = (tmp_path / "storage.json").read_bytes()
    (tmp_path / "storage.json").write_bytes(content)
    open_storage(str(tmp_path))
    assert "storage.json is damaged; writing it again" in capsys.readouterr().err
    assert (tmp_path / "storage.json").read_bytes() == whole
    open_storage(str(tmp_path))
    assert capsys.readouterr().err == ""


def test_the_layout_of_earlier_versions_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "storage.json").write_text('{\n "layout": 1\n}')
    open_storage(str(tmp_path), create=True)
    assert (tmp_path / "storage.json").read_text() == '{\n "layout": 1\n}'


def test_a_plan_counts_a_damaged_result_as_none(
    storage: Storage, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(
        "name: one\ndataset: {name: digits, limit: 50, validation: 0.2}\nmodel: convnet\nprecision: fp32\nbaseline: none\n"
        "search: {warmup_epochs: [2], prune_iterations: [2], sparsity: [0.9], seed: [0]}\n"
        "training: {epochs: 2, batch_size: 20, lr: 0.05}\n"
    )
    assert isinstance(storage, LocalStorage)
    spec = load_spec(str(file), [f"storage={json.dumps(storage.root)}"])
    plan = make_plan(spec, storage)
    assert [trial.key for trial in plan.trials] == [finished[1]["trial_key"]]
    assert not plan.unfinished
    assert not plan.damage
    draw = random.Random(0)
    for _ in range(30):
        content = storage.read(trial_file(plan.trials[0].key, RESULT)) or b""
        changed = flip(content, draw.randrange(8 * len(content)))
        storage.write(trial_file(plan.trials[0].key, RESULT), changed)
        result = make_plan(spec, storage).trials[0].result
        assert result is None or result == finished[1]
        storage.write(trial_file(plan.trials[0].key, RESULT), content)
