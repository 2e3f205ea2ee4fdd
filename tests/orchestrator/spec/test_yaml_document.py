"""YAML text becomes values with line numbers; a syntax error is reported in one line."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.spec.yaml_document import parse, parse_value

NESTED = """\
# a comment
name: x

search:
  seed: [0,
    1]
  sparsity:
    - 0.9
    # between
    - 0.95
base: &base {lr: 0.1,
  momentum: 0.9}
training:
  <<: *base
  lr: 0.2
"""


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 0.0001),
        ("1.0e-4", 0.0001),
        ("5", 5),
        ("010", 10),
        ("0o17", 15),
        (".5", 0.5),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("true", True),
        ("~", None),
        ("", None),
        ("2024-01-31", "2024-01-31"),
        ("12:30", "12:30"),
        ("'1'", "1"),
        ("[1, a, 0.5]", [1, "a", 0.5]),
        ("{a: {b: [1]}}", {"a": {"b": [1]}}),
    ],
)
def test_scalars_follow_yaml_1_2(written: str, value: Any) -> None:
    for result in (parse(f"key: {written}\n", "f").data["key"], parse_value(written, "--set key")):
        assert result == value
        assert type(result) is type(value)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 2),
        (("search",), 4),
        (("search", "seed"), 5),
        (("search", "seed", 1), 6),
        (("search", "sparsity", 0), 8),
        (("search", "sparsity", 1), 10),
        (("search", "sparsity", 7), 7),
        (("search", "unknown"), 4),
        (("name", "below"), 2),
        (("training", "lr"), 15),
        (("training", "momentum"), 12),
        (("missing", "below"), 2),
    ],
)
def test_line_of_a_missing_path_is_that_of_its_parent(path: tuple[str | int, ...], line: int) -> None:
    assert parse(NESTED, "f").line(path) == line


def test_direct_keys_override_merged_keys() -> None:
    assert parse(NESTED, "f").data["training"] == {"lr": 0.2, "momentum": 0.9}


@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}], own{level}: 1}}"])
def test_anchors_that_multiply_values_are_refused(form: str) -> None:
    """A "billion laughs": 30 lines that stand for 10^30 values, which a check or a message would walk through."""
    first = "k0: &k0 {a: 1}"
    levels = [f"k{n}: &k{n} {form.format(', '.join([f'*k{n - 1}'] * 10), level=n)}" for n in range(1, 30)]
    with pytest.raises(UserError, match="must have at most 100000 values"):
        parse("\n".join([first, *levels]), "f")
    assert parse("\n".join([first, *levels[:3]]), "f").data["k3"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3: a must not be written twice, got 'a' also on line 1; remove one of them"),
        ("a: {b: 1,\n  b: 2}\n", "f:2: b must not be written twice, got 'b' also on line 1; remove one of them"),
        ("a:\n\tb: 1\n", "f:2: must be YAML, got '\\tb: 1'; indent with spaces, not with tabs"),
        ("a: 1\nb: [1, 2\n", "f:2: must be YAML, got 'b: [1, 2'; close the bracket"),
        ("a: 1\nb: 'x\n", 'f:2: must be YAML, got "b: \'x"; close the quotes'),
        (
            "a: 1\n  b: 2\n",
            "f:2: must be YAML, got '  b: 2'; one `key: value` a line, a space after the colon, "
            "keys of one mapping equally indented",
        ),
        ("a: @x\n", "f:1: must be YAML, got 'a: @x'; write the value in quotes"),
        ("a: *b\n", "f:1: must be YAML, got 'a: *b'; define the anchor with & before it is used"),
        ("a: 1\n---\nb: 2\n", "f:2: must be YAML, got '---'; keep one document and remove the line ---"),
        ("a: 1\nb: \x07\n", "f:2: must be text, got the character '\\x07'; remove it"),
        ("a: " + "[" * 500, "f:1: must be nested less deeply, got 100 levels or more; a sweep file has three"),
        ("a: &a [*a]\n", "f:1: must not contain itself, got an alias of an outer value; write it out"),
        ("a: !thing x\n", "f:1: must not have a tag, got '!thing'; remove it"),
        ("a: !!int x\n", "f:1: must fit its tag, got 'x'; remove the tag"),
        ("a: 9007199254740993\n", "f:1: must be at most 2^53, got a number of 16 digits; write a smaller number"),
        (f"a: -{'9' * 400}\n", "f:1: must be at most 2^53, got a number of 400 digits; write a smaller number"),
        ("a: 1\n2: b\n", "f:2: a key must be a word, got '2'; write `word: value`"),
        ("", "f:1: must be a mapping of keys, got nothing; `drive-sweep init` writes a file to start from"),
        ("# c\n- a\n", "f:2: must be a mapping of keys, got a list; `drive-sweep init` writes a file to start from"),
        ("word\n", "f:1: must be a mapping of keys, got 'word'; `drive-sweep init` writes a file to start from"),
    ],
)
def test_invalid_yaml_is_reported_in_one_line(text: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text, "f")
    assert str(error.value) == expected
    assert error.value.code == "yaml-invalid"
