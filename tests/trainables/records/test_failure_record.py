"""error.json: read as it was written, or not at all."""

from __future__ import annotations

import json

import pytest

from tests.support.trials import new_storage, tiny_config, trial_folder
from trainables.errors import FailureKind
from trainables.records.failure_record import FIELDS, publish_failure, read_failure


@pytest.fixture
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = trial_folder(tiny_config(), new_storage(tmp_path_factory.mktemp("failed")))
    publish_failure(folder, FailureKind.CODE, "ValueError: x", "Traceback ...")
    return folder.read("error.json") or b""


def test_no_cut_out_part_leaves_another_record(content: bytes) -> None:
    """A part that takes the digest with it could leave a record like those of versions without digests."""
    whole = read_failure(content)
    assert whole is not None
    for start in range(len(content)):
        for end in range(start + 1, len(content) + 1):
            assert read_failure(content[:start] + content[end:]) in (None, whole), (start, end)


def test_records_of_versions_without_digests_are_read(content: bytes) -> None:
    earlier = {name: value for name, value in json.loads(content).items() if name in FIELDS}
    assert read_failure(json.dumps(earlier).encode()) == earlier
    for name in FIELDS:
        less = {field: value for field, value in earlier.items() if field != name}
        assert read_failure(json.dumps(less).encode()) is None
    assert [read_failure(other) for other in (None, b"", b"[]", b"{", b"null")] == [None] * 5
