"""Seeds derived from a trial's seed, one for each purpose and step."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose at one step, so that no generator state has to be kept between steps."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
