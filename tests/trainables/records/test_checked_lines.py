"""Lines with checksums: damage of a value is found before there is a digest, and older lines are read."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from typing import Any

import pytest

from trainables.records.checked_lines import CheckedLines, checked_line, read_checked_line
from trainables.records.metrics import DamagedRecordError, MetricLog, Point, points_from_json, points_from_lines

POINT = Point("val/accuracy", 3, 0.8125, 1_790_000_000_000)


def test_checksum_is_the_crc_of_the_line_without_it() -> None:
    text = json.dumps(POINT.to_json())
    line = checked_line(text)
    assert json.loads(line) == POINT.to_json() | {"crc32": f"{zlib.crc32(text.encode()):08x}"}
    assert read_checked_line(line) == POINT.to_json()


def test_every_flipped_bit_of_a_running_trials_points_is_found() -> None:
    content = MetricLog([POINT, Point("train/loss", 3, 1.5, 1)]).to_lines()
    assert points_from_lines(content) == [POINT, Point("train/loss", 3, 1.5, 1)]
    for place in range(len(content) - 1):  # the last byte ends the line
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            with pytest.raises(DamagedRecordError):
                points_from_lines(bytes(damaged))


def test_lines_of_older_versions_are_read() -> None:
    assert points_from_lines(json.dumps(POINT.to_json()).encode()) == [POINT]


def test_no_cut_out_part_leaves_another_point() -> None:
    """A part that takes a checksum with it could leave a line like those of versions without checksums."""
    points = [POINT, Point("train/loss", 3, 1.5, 1_790_000_000_001), Point("val/loss", 4, 0.25, 1_790_000_000_002)]
    content = MetricLog(points).to_lines()
    for start in range(len(content)):
        for end in range(start + 1, len(content) + 1):
            with suppress(DamagedRecordError):
                assert set(points_from_lines(content[:start] + content[end:])) <= set(points), (start, end)


def test_lines_without_checksums_stand_before_all_others() -> None:
    earlier, later = json.dumps(POINT.to_json()), checked_line(json.dumps(POINT.to_json()))
    lines = CheckedLines()
    assert [lines.read(line) for line in (earlier, earlier, later, later)] == [POINT.to_json()] * 4
    with pytest.raises(ValueError, match="has lost its checksum"):
        lines.read(earlier)
    alone = CheckedLines()
    alone.read(earlier)
    with pytest.raises(ValueError, match=r"the line before .* has lost its checksum"):
        alone.read(later)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value", float("nan")),
        ("value", float("inf")),
        ("value", "0.5"),
        ("value", True),
        ("value", None),
        ("value", 10**400),
        ("step", 1.5),
        ("step", True),
        ("time", 0.5),
        ("key", 3),
        ("other", 1),
    ],
)
def test_a_point_has_exactly_its_fields(field: str, value: Any) -> None:
    assert points_from_json(POINT.to_json()) == POINT
    with pytest.raises(ValueError, match="is no metric point"):
        points_from_json(POINT.to_json() | {field: value})


@pytest.mark.parametrize("line", [b"[" * 100_000, b"{" * 100_000, b"3", b"\xff", b"", b'{"key": "a"}'])
def test_no_line_leads_to_another_error(line: bytes) -> None:
    with pytest.raises(DamagedRecordError, match="line 1"):
        points_from_lines(line + b"\n")
