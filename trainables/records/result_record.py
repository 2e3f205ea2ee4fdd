"""result.json: written with digests of itself and of the files beside it, and read only if it is whole.

Records of versions without digests are read if they have the fields of such a record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainables.config.keys import NUMERICS, from_canonical, inputs_digest, trial_key
from trainables.config.trial import TrialConfig
from trainables.custom.references import sha256
from trainables.records.metrics import DamagedRecordError, MetricLog, points_from_lines
from trainables.records.self_digest import FIELD as RECORD
from trainables.records.self_digest import is_whole, with_digest
from trainables.runtime.json_text import parse_json

KEY, METRICS_FILE, MODEL_FILE = "trial_key", "metrics_sha256", "model_file_sha256"
FIELDS: dict[str, tuple[type, ...]] = {  # of a record without digests
    "config": (dict,),
    "numerics": (dict,),
    "attempt": (int,),
    "model_sha256": (str,),
    "model_bytes": (int,),
    "image_shape": (list,),
    "num_classes": (int,),
    "metrics": (dict,),
    "fingerprints": (list,),
    "started_ms": (int,),
    "finished_ms": (int,),
    "seed": (int,),
    "prunable_weights": (int,),
    "kept_weights": (int,),
    "layers": (list,),
}
OPTIONAL_FIELDS = {  # of a record without digests
    *("achieved_sparsity", "data_digest", "device", "emptied_layers", "flops", "kept_flops", "kept_parameters", "live_weights"),
    *("key", "mask_sha256", "metric_points", "warmup_key", "own_digests", "parameters", "requested_sparsity", "revision"),
    "sweep",
}


def encode_result(key: str, result: Mapping[str, Any], metrics: bytes, model: bytes) -> tuple[dict[str, Any], bytes]:
    """The result of a trial with its digests, and the content of result.json."""
    record = with_digest({**result, KEY: key, METRICS_FILE: sha256(metrics), MODEL_FILE: sha256(model)})
    return record, json.dumps(record, indent=1, sort_keys=True).encode()


def decode_result(content: bytes, key: str | None = None) -> dict[str, Any]:
    """The result in the content of result.json.

    Args:
        key: of the trial whose folder holds the file.

    Raises:
        DamagedRecordError: the content is not what was written.
    """
    try:
        record = parse_json(content)
    except ValueError:
        raise DamagedRecordError("is no JSON") from None
    if not isinstance(record, dict):
        raise DamagedRecordError("is no record of a trial")
    if not is_whole(record):
        raise DamagedRecordError(f"does not match its own SHA-256 ({RECORD})")
    if METRICS_FILE not in record:
        _check_form(record)
    if key is not None and (named := record.get(KEY) or record.get("key") or _key_of(record)) not in (None, key):
        raise DamagedRecordError(f"is the record of trial {named}")
    return record


def metrics_damage(record: Mapping[str, Any], metrics: bytes) -> str:
    """The damage of a finished trial's metrics.jsonl; empty if it is the file that the result was written with."""
    if METRICS_FILE in record:
        return "" if sha256(metrics) == record[METRICS_FILE] else "does not match the SHA-256 in result.json"
    lines = metrics.splitlines()
    if len(lines) != record.get("metric_points", len(lines)) or (record["metrics"] and not lines):
        return f"has {len(lines)} points and not {record.get('metric_points', len(record['metrics']))}"
    try:
        values = MetricLog(points_from_lines(metrics)).last_values()
    except DamagedRecordError as error:
        return str(error)
    return "" if values == record["metrics"] else "has other last values than result.json"


def _check_form(record: Mapping[str, Any]) -> None:
    """Raises DamagedRecordError unless a record without digests has all fields, and counts that agree with each other."""
    for name, types in FIELDS.items():
        if not isinstance(record.get(name), types):
            raise DamagedRecordError(f"has no valid {name}")
    if unknown := sorted(set(record) - set(FIELDS) - OPTIONAL_FIELDS):
        raise DamagedRecordError(f"has an unknown field {unknown[0]!r}")
    try:
        kept = sum(int(layer["kept"]) for layer in record["layers"])
        numbers = [float(value) for value in record["metrics"].values()]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DamagedRecordError("has layers or metrics that are not numbers") from None
    if kept != record["kept_weights"] or not numbers:
        raise DamagedRecordError(f"keeps {record['kept_weights']} weights, {kept} in its layers")


def _key_of(record: Mapping[str, Any]) -> str | None:
    """The trial key of a record without digests; None where it cannot be computed."""
    if record.get("numerics") != NUMERICS or not record.get("data_digest"):
        return None
    try:
        config = from_canonical(TrialConfig, record["config"])
    except (TypeError, ValueError, AttributeError):
        raise DamagedRecordError("has an unknown configuration") from None
    return trial_key(config, inputs_digest(record["data_digest"], record.get("own_digests", {})))
