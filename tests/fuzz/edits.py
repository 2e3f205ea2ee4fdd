"""Edits of files: of their bytes, as disks and networks damage them, and of the values in them, as an attacker would."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.fuzz.choices import Choices

TOKENS = (b"NaN", b"-Infinity", b"1e999", b"null", b"9" * 400, b"[" * 2000, b'{"a":' * 500, b"\\ud800", b"\x00", b"\xff", b"\n")
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *("", "a", "\ud800", "../../x", "9" * 5000, [], {}, [[]], {"a": None}, [0] * 1000),
)


def flip(content: bytearray, choices: Choices) -> None:
    content[choices.number(len(content))] ^= 1 << choices.number(8)


def overwrite(content: bytearray, choices: Choices) -> None:
    content[choices.number(len(content))] = choices.number(256)


def cut(content: bytearray, choices: Choices) -> None:
    start = choices.number(len(content))
    del content[start : start + 1 + choices.number(64)]


def truncate(content: bytearray, choices: Choices) -> None:
    del content[choices.number(len(content)) :]


def insert(content: bytearray, choices: Choices) -> None:
    place = choices.number(len(content) + 1)
    content[place:place] = choices.content(1 + choices.number(16))


def insert_token(content: bytearray, choices: Choices) -> None:
    place = choices.number(len(content) + 1)
    content[place:place] = TOKENS[choices.number(len(TOKENS))]


def repeat(content: bytearray, choices: Choices) -> None:
    start = choices.number(len(content))
    place = choices.number(len(content) + 1)
    content[place:place] = content[start : start + 1 + choices.number(64)]


EDITS: tuple[Callable[[bytearray, Choices], None], ...] = (flip, flip, overwrite, cut, truncate, insert, insert_token, repeat)


def damaged(content: bytes, choices: Choices) -> bytes:
    """The content after one to four edits of its bytes."""
    edited = bytearray(content)
    for _ in range(1 + choices.number(4)):
        if edited:
            EDITS[choices.number(len(EDITS))](edited, choices)
    return bytes(edited)


def with_other_value(value: Any, choices: Choices) -> Any:
    """The JSON value with one part replaced, removed, doubled, or named otherwise; it may be the whole."""
    if not isinstance(value, dict | list) or not value or choices.number(8) == 0:
        return VALUES[choices.number(len(VALUES))]
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[choices.number(len(keys))]
    action = choices.number(10)
    edited: Any = dict(value) if isinstance(value, dict) else list(value)
    if action == 0:
        del edited[key]
    elif action == 1:
        if isinstance(edited, dict):
            edited[str(key) + "x"] = edited.pop(key)
        else:
            edited.append(value[key])
    else:
        edited[key] = with_other_value(value[key], choices)
    return edited


def json_edit(content: bytes, choices: Choices) -> bytes:
    """A JSON text with another value in it."""
    return json.dumps(with_other_value(json.loads(content), choices)).encode()


def line_edit(content: bytes, choices: Choices) -> bytes:
    """Lines of JSON with another value in one of them."""
    lines = content.splitlines()
    number = choices.number(len(lines))
    lines[number] = json_edit(lines[number], choices)
    return b"".join(line + b"\n" for line in lines)
