"""JSON records with a SHA-256 of themselves, so that a reader detects damage.

The digest is over the canonical JSON of all other fields. Records of versions without digests are accepted without one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any

FIELD = "record_sha256"
MOST_LETTERS = 10  # of 13; the next most like it, model_file_sha256, has 9
OTHER_DIGESTS = {"data_digest", "digest", "arrays_digest", "model_sha256", "mask_sha256", "state_sha256"}  # no FIELD
DIGEST = re.compile(r"[0-9a-f]{64}")


def digest_of(record: Mapping[str, Any]) -> str:
    """64 hex digits over all fields but the digest itself."""
    return _sha256({name: value for name, value in record.items() if name != FIELD})


def with_digest(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its digest."""
    return {**record, FIELD: digest_of(record)}


def is_whole(record: Mapping[str, Any]) -> bool:
    """Whether a record matches its digest; true for a record of a version without one."""
    if FIELD in record:
        return bool(record[FIELD] == digest_of(record))
    return not any(_is_damaged_digest(name, value) for name, value in record.items())


def _is_damaged_digest(name: str, value: Any) -> bool:
    """Whether a field is what damage has left of FIELD: most letters of its name in their order, or its value."""
    blocks = SequenceMatcher(None, FIELD, name, autojunk=False).get_matching_blocks()
    is_other = name in OTHER_DIGESTS or not isinstance(value, str) or not DIGEST.fullmatch(value)
    return sum(block.size for block in blocks) >= MOST_LETTERS or not is_other


def _sha256(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
