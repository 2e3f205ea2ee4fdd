"""JSON records with a SHA-256 of themselves, so that a reader detects damage.

The digest is over the canonical JSON of all other fields. Records of versions without digests are accepted without one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

FIELD = "record_sha256"
DIGEST = re.compile(r"[0-9a-f]{64}")


def digest_of(record: Mapping[str, Any]) -> str:
    """64 hex digits over all fields but the digest itself."""
    return _sha256({name: value for name, value in record.items() if name != FIELD})


def with_digest(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its digest."""
    return {**record, FIELD: digest_of(record)}


def is_whole(record: Mapping[str, Any]) -> bool:
    """Whether a record matches its digest; true for a record without one."""
    if FIELD in record:
        return bool(record[FIELD] == digest_of(record))
    return not any(_digest_of_others(name, record) for name in record)


def _digest_of_others(name: str, record: Mapping[str, Any]) -> bool:
    """Whether a field holds the digest of all others under another, damaged name."""
    value = record[name]
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        return False
    return value == _sha256({other: content for other, content in record.items() if other != name})


def _sha256(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
