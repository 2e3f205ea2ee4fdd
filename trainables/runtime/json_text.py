"""JSON that was read from somewhere: any text that is not JSON is a ValueError, also one that is nested too deeply."""

from __future__ import annotations

import json
from typing import Any


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: the text is not JSON, not Unicode, or nested more deeply than Python can follow.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
