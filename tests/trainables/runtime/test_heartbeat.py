"""Signs of life: at the first batch, then at most once per interval, and only while somebody listens."""

from __future__ import annotations

import pytest
import torch

from trainables.data.batches import normalized
from trainables.data.normalization import Normalization
from trainables.runtime.heartbeat import beat, heard_by


def test_beats_are_heard_once_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now, heard = [0.0], list[float]()
    monkeypatch.setattr("trainables.runtime.heartbeat.time.monotonic", lambda: now[0])
    with heard_by(lambda: heard.append(now[0]), interval_s=10):
        for second in range(35):
            now[0] = float(second)
            beat()
    assert heard == [0, 10, 20, 30]
    now[0] = 100.0
    beat()  # nobody listens
    assert len(heard) == 4


def test_every_batch_is_a_sign_of_life() -> None:
    heard: list[int] = []
    batches = [(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))] * 3
    normalization = Normalization(mean=(0.0,), std=(1.0,))
    with heard_by(lambda: heard.append(1), interval_s=0):
        for _ in normalized(batches, normalization):
            pass
    assert len(heard) == 3
