"""The measured latencies of a finished trial: latency.json in its folder, and the metric points that follow from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainables.records.metrics import DamagedRecordError, Point
from trainables.records.self_digest import is_whole, with_digest
from trainables.runtime.json_text import parse_json

FIELDS = ("batch", "time_ms", "processor", "threads", "milliseconds", "speedups", "fastest", "verdict")


def encode_latency(key: str, measurements: Sequence[dict[str, Any]]) -> bytes:
    """The content of the file; the newest measurement is the last."""
    return (json.dumps(with_digest({"key": key, "measurements": list(measurements)}), indent=1) + "\n").encode()


def decode_latency(content: bytes | None, key: str) -> list[dict[str, Any]]:
    """The measurements, in their order; none without a file.

    Raises:
        DamagedRecordError: it is not what was written, or is of another trial.
    """
    if content is None:
        return []
    try:
        record = parse_json(content)
        if not is_whole(record) or record["key"] != key:
            raise ValueError("another record")
        measurements: list[dict[str, Any]] = record["measurements"]
        if not all(one.keys() >= set(FIELDS) for one in measurements):
            raise ValueError("fields are missing")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedRecordError(f"is damaged: {error}") from error
    return measurements


def latency_points(measurements: Sequence[dict[str, Any]]) -> list[Point]:
    """Milliseconds of each way to run the network, and the fastest one's speed-up; a batch's n-th measurement is step n.

    Those in half precision have names of their own. MLflow takes no colon in a name, so that of 2:4 has none.
    """
    points, counts = [], dict[tuple[int, str], int]()
    for one in measurements:
        batch, suffix = int(one["batch"]), "_half" if is_half(one) else ""
        step = counts[batch, suffix] = counts.get((batch, suffix), -1) + 1
        values = {f"{name.replace(':', 'of')}_ms{suffix}": spread[0] for name, spread in one["milliseconds"].items()}
        values[f"speedup{suffix}"] = one["speedups"][one["fastest"]][0]
        time_ms = int(one["time_ms"])
        points += [Point(f"latency/batch{batch}/{name}", step, float(value), time_ms) for name, value in values.items()]
    return points


def is_half(one: Mapping[str, Any]) -> bool:
    """Whether a measurement is in half precision; the first versions measured in single precision alone."""
    return bool(one.get("precision", "fp32") == "fp16")


def latency_text(one: dict[str, Any]) -> str:
    """One measurement in a line."""
    times = ", ".join(f"{name} {spread[0]:.3g} ms" for name, spread in one["milliseconds"].items())
    median, low, high = one["speedups"][one["fastest"]]
    return (
        f"batch {one['batch']}: {times}; {one['fastest']} is {one['verdict']} than dense: {median:.2f} times ({low:.2f} to "
        f"{high:.2f}), on {one['processor']}, {one['threads']} thread{'s' if one['threads'] != 1 else ''}"
        f"{', half precision' if is_half(one) else ''}"
    )
