"""When the rest of a sweep ends, against courses that are worked out by hand."""

from __future__ import annotations

import pytest

from orchestrator.planning.makespan import Waiting, makespan


@pytest.mark.parametrize(
    ("slots", "running", "warmups", "trials", "end"),
    [
        (2, {}, {}, [], 0.0),
        (1, {"a": 5.0}, {}, [Waiting(3.0)], 8.0),
        (2, {}, {}, [Waiting(4.0), Waiting(4.0), Waiting(4.0)], 8.0),  # and not 12 / 2
        (2, {"a": 1.0, "b": 2.0}, {}, [Waiting(4.0), Waiting(4.0)], 6.0),
        (2, {"a": 1.0, "b": 2.0, "c": 9.0}, {}, [], 9.0),  # more than there is room for now
        (2, {}, {"w": 10.0}, [Waiting(2.0, "w")], 12.0),
        (2, {}, {"w": 10.0}, [Waiting(2.0, "w", 0.5)], 10.0),  # its snapshot is there half way
        (2, {}, {"w": 10.0}, [Waiting(9.0, "w", 0.5)], 14.0),
        (2, {"w": 3.0}, {}, [Waiting(2.0, "w"), Waiting(1.0)], 5.0),  # the other slot does what is ready
        (1, {}, {"w": 1.0, "v": 1.0}, [Waiting(2.0, "w"), Waiting(3.0, "v")], 7.0),
    ],
)
def test_end_follows_from_slots_order_and_snapshots(
    slots: int, running: dict[str, float], warmups: dict[str, float], trials: list[Waiting], end: float
) -> None:
    assert makespan(slots, running, warmups, trials) == pytest.approx(end)
