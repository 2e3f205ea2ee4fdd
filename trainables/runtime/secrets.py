"""Keeps secrets out of texts that are recorded, sent or shown: errors of users' code may quote whatever they saw."""

from __future__ import annotations

import os
import re

SECRET_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|PRIVATE_KEY|API_?KEY|ACCESS_KEY", re.IGNORECASE)
PLACE_NAME = re.compile(r"(_PATH|_FILE|_DIR|_URI|_URL)$", re.IGNORECASE)  # they say where a secret is
SHORTEST = 8  # characters of a value that cannot stand in a text by chance
LOGIN = re.compile(r"://[^/\s@'\"<>]+@")
PARAMETER = re.compile(
    r"([?&;](?:[\w-]*(?:password|passwd|secret|token|credential|signature|api_?key|access_?key)[\w-]*|sig))=[^&\s'\"<>]+",
    re.IGNORECASE,
)
HEADER = re.compile(r"((?:Basic|Bearer)\s+)[A-Za-z0-9+/=._~-]{8,}")


def without_secrets(text: str) -> str:
    """The text with `...` for values of this process's secret variables, logins and secret parameters in URLs, and headers."""
    for value in sorted(_secret_values(), key=len, reverse=True):
        text = text.replace(value, "...")
    text = LOGIN.sub("://...@", text)
    return HEADER.sub(r"\1...", PARAMETER.sub(r"\1=...", text))


def _secret_values() -> set[str]:
    return {
        value
        for name, value in os.environ.items()
        if len(value) >= SHORTEST and SECRET_NAME.search(name) and not PLACE_NAME.search(name)
    }
