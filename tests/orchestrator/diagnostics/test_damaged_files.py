"""Damaged files of a storage besides results: nothing but what was written is read from them, and each heals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.diagnostics.agreement import agreement_checks
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus, state_to_bytes
from orchestrator.state.trial_results import damaged_files, read_results
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import TrialFolder, newest_attempt, trial_file
from tests.support.trials import new_storage, run, tiny_config
from trainables.errors import StaleAttemptError
from trainables.records.file_names import CONFIG, MODEL, RESULT

RECORD = {"digest": "0" * 32, "name": "mine", "facts": {"classes": ["a", "b"], "shape": [1, 8, 8]}}
DAMAGED_JSON = [b"", b"[]", b"null", b"7", b"{}", b'{"trials": 3}', b"PK\x03\x04", b"[" * 100_000]


def flip(content: bytes, bit: int) -> bytes:
    bit %= 8 * len(content)
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return new_storage(tmp_path_factory.mktemp("scratch"))


@given(bit=st.integers(min_value=0))
def test_no_flipped_bit_of_a_record_is_read_as_another_value(bit: int, scratch: Storage) -> None:
    scratch.write_json("data/one.json", RECORD)
    assert scratch.read_json("data/one.json") == RECORD
    scratch.write("data/one.json", flip(scratch.read("data/one.json") or b"", bit))
    assert scratch.read_json("data/one.json", fields=("digest",)) in (None, RECORD)


@given(bit=st.integers(min_value=0))
def test_no_flipped_bit_of_a_state_is_read_as_another_value(bit: int, scratch: Storage) -> None:
    state = SweepState(sweep="s", trials={"k": TrialStatus(key="k", name="n", state="finished", config={}, metrics={"a": 0.5})})
    folder = SweepFolder(scratch, "s")
    folder.write_state(state)
    assert folder.read_state() == state
    scratch.write(folder.file("state.json"), flip(state_to_bytes(state, {}), bit))
    assert folder.read_state() in (None, state)


@pytest.mark.parametrize("content", DAMAGED_JSON)
def test_a_state_of_another_form_is_none(content: bytes, scratch: Storage) -> None:
    folder = SweepFolder(scratch, "foreign")
    scratch.write(folder.file("state.json"), content)
    assert folder.read_state() is None


def test_records_and_states_from_before_there_were_digests_count(scratch: Storage) -> None:
    scratch.write("data/old.json", json.dumps(RECORD).encode())
    assert scratch.read_json("data/old.json", fields=("digest",)) == RECORD
    folder = SweepFolder(scratch, "old")
    values = json.loads(state_to_bytes(SweepState(sweep="old"), {}))
    scratch.write(
        folder.file("state.json"), json.dumps({name: values[name] for name in values if name != "state_sha256"}).encode()
    )
    assert folder.read_state() == SweepState(sweep="old")


def test_a_damaged_file_is_named_once(scratch: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    scratch.write("sweeps/named/resolved.json", b"{")
    for _ in range(2):
        assert scratch.read_json("sweeps/named/resolved.json") is None
    assert capsys.readouterr().err == f"storage {scratch.root}: sweeps/named/resolved.json is damaged and not used\n"


@pytest.mark.parametrize("content", [*DAMAGED_JSON, b'{"attempt": "7'])
def test_after_a_damaged_count_a_late_attempt_writes_nothing(content: bytes, tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    late = TrialFolder(storage, "k", 7)
    late.claim_attempt()
    storage.write(trial_file("k", "attempt.json"), content)
    TrialFolder(storage, "k", newest_attempt(storage, "k") + 1).claim_attempt()
    with pytest.raises(StaleAttemptError):
        late.publish("metrics.jsonl", b"late")


def test_doctor_fix_archives_trials_that_recompute_alike(tmp_path: Path) -> None:
    storage, config = new_storage(tmp_path), tiny_config()
    result = run(config, storage)
    key = result["trial_key"]
    assert all(check.ok for check in agreement_checks(storage, fix=False))
    config_file = trial_file(key, CONFIG)
    written = storage.read(config_file)
    for number, name in enumerate((MODEL, "metrics.jsonl", RESULT)):
        content = storage.read(trial_file(key, name)) or b""
        storage.write(trial_file(key, name), flip(content, 4 * len(content)))
        storage.write(config_file, b"foreign")
        results, damage = read_results(storage, [key])
        assert (damage | damaged_files(storage, results)).keys() == {key}
        damaged, *_ = agreement_checks(storage, fix=False)
        assert (damaged.ok, damaged.name, f"trials/{key}/{name}" in damaged.message) == (False, "records", True)
        assert "--fix" in damaged.hint
        assert all(check.ok for check in agreement_checks(storage, fix=True))
        assert not storage.exists(trial_file(key, RESULT))
        assert run(config, storage, attempt=10 + number)["model_sha256"] == result["model_sha256"]
        assert storage.read(config_file) == written


def test_unfinished_trial_rewrites_its_damaged_configuration(tmp_path: Path) -> None:
    storage, config = new_storage(tmp_path), tiny_config()
    key = run(config, storage)["trial_key"]
    written = storage.read(trial_file(key, CONFIG))
    storage.remove(trial_file(key, RESULT))
    storage.write(trial_file(key, CONFIG), flip(written or b"", 800))
    run(config, storage, attempt=2)
    assert storage.read(trial_file(key, CONFIG)) == written
