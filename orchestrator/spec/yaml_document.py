"""Reads YAML into plain values and remembers the line of each.

YAML 1.2: 1e-4 is a number; `off`, `yes` and dates are text. A key may occur only once in a mapping. A path is the keys and
indices that lead to a value, such as ("search", "sparsity", 2).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner

from orchestrator.command_line import command
from orchestrator.errors import UserError
from trainables.wording import shortened

KeyPath = tuple[str | int, ...]

PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")}
TEXT_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "value", "merge")}
COLLECTION_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq")}
MOST_LEVELS = 100
MOST_VALUES = 100_000  # with those behind aliases, which a few lines can multiply without end
LARGEST = 2**53  # whole number: larger ones are not exact everywhere, and none is meant
HINTS = {  # text in the parser's message -> hint
    "'\\t'": "indent with spaces, not with tabs",
    "mapping values are not allowed": "one `key: value` a line, a space after the colon, keys of one mapping equally indented",
    "flow": "close the bracket",
    "quoted scalar": "close the quotes",
    "another document": "keep one document and remove the line ---",
    "undefined alias": "define the anchor with & before it is used",
    "cannot start any token": "write the value in quotes",
    "expected <block end>": "indent all keys of one mapping equally",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A mapping as plain dicts, lists and scalars, with the line of each value."""

    data: dict[str, Any]
    root: Node

    def line(self, path: KeyPath) -> int:
        """1-based line of a key or list item, or of its nearest parent if there is none at this path."""
        node: Node | None = self.root
        line: int = self.root.start_mark.line + 1
        for step in path:
            line, node = _child(node, step, line)
            if node is None:
                break
        return line


def parse(text: str, file: str) -> Document:
    """The document in `text`; `file` is its name in messages.

    Raises:
        UserError: the text is not YAML, a key is repeated or not a word, or the top level is not a mapping.
    """

    def location(line: int) -> str:
        return f"{file}:{line}"

    root = _compose(text, location)
    if not isinstance(root, MappingNode):
        line, kind = (1, "nothing") if root is None else (root.start_mark.line + 1, _kind(root))
        hint = f"`{command('init')}` writes a file to start from"
        raise UserError(f"{location(line)}: must be a mapping of keys, got {kind}", hint, code="yaml-invalid")
    return Document(_Reader(location).plain(root), root)


def parse_value(text: str, option: str) -> Any:
    """The value of an option on the command line; `option` is its name in messages."""
    root = _compose(text, lambda line: option)
    return None if root is None else _Reader(lambda line: option).plain(root)


def _compose(text: str, location: Callable[[int], str]) -> Node | None:
    """The tree of nodes; their tags are the types of the plain scalars."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an anchor may be redefined
            reader = YAML(typ="safe", pure=True)
            reader.Scanner = _Scanner
            root: Node | None = reader.compose(text)
    except MarkedYAMLError as error:
        raise _syntax_error(error, text, location) from None
    except RecursionError:
        message = f"{location(1)}: must be nested less deeply, got {MOST_LEVELS} levels or more"
        raise UserError(message, "a sweep file has three", code="yaml-invalid") from None
    except ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        message = f"{location(number)}: must be text, got the character {chr(error.character)!r}"
        raise UserError(message, "remove it", code="yaml-invalid") from None
    return root


def _syntax_error(error: MarkedYAMLError, text: str, location: Callable[[int], str]) -> UserError:
    """The parser's error with the line of the text and a hint."""
    mark = error.problem_mark or error.context_mark
    reason = f"{error.context or ''} {error.problem or ''}"
    if "flow" in reason or "quoted" in reason:
        mark = error.context_mark or mark  # where the bracket was opened, not where the file ends
    lines = text.splitlines() or [""]
    number = min(mark.line if mark else 0, len(lines) - 1)
    line = lines[number]
    hint = next((hint for fragment, hint in HINTS.items() if fragment in reason), "write the value in quotes")
    if "\t" in line[: len(line) - len(line.lstrip())]:
        hint = HINTS["'\\t'"]
    return UserError(f"{location(number + 1)}: must be YAML, got {shortened(line, 60)!r}", hint, code="yaml-invalid")


class _Scanner(Scanner):
    """Refuses many open brackets early, since ruamel's time grows with their square."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        if self.flow_level >= MOST_LEVELS:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass, to_push)


class _Reader:
    """Nodes -> values; `location` names a line in messages. An anchored value is read once, however often it is used.

    Attributes:
        counts: values in a node that was read, those behind its aliases as often as they are used.
    """

    def __init__(self, location: Callable[[int], str]) -> None:
        self.location = location
        self.values: dict[int, Any] = {}
        self.counts: dict[int, int] = {}
        self.scalars = YAML(typ="safe", pure=True).constructor

    def plain(self, node: Node, inside: tuple[Node, ...] = ()) -> Any:
        if any(node is outer for outer in inside):
            self.fail(node, "must not contain itself, got an alias of an outer value", "write it out")
        if id(node) not in self.values:
            value = self.scalar(node) if isinstance(node, ScalarNode) else self.collection(node, (*inside, node))
            self.values[id(node)] = value
            self.counts[id(node)] = 1 + sum(self.counts[id(child)] for child in _children(node))
            if self.counts[id(node)] > MOST_VALUES:
                self.fail(node, f"must have at most {MOST_VALUES} values, got {self.counts[id(node)]}", "write fewer")
        return self.values[id(node)]

    def collection(self, node: Node, inside: tuple[Node, ...]) -> Any:
        if node.tag not in COLLECTION_TAGS:
            self.fail(node, f"must not have a tag, got {node.tag!r}", "remove it")
        if isinstance(node, SequenceNode):
            return [self.plain(item, inside) for item in node.value]
        merged: dict[str, Any] = {}
        direct: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.key(key_node)
            if key in first_line:
                message = f"{self.location(line)}: {key} must not be written twice, got {key!r} also on line {first_line[key]}"
                raise UserError(message, "remove one of them", code="yaml-invalid")
            first_line[key] = line
            if _is_merge(key_node):
                for mapping in reversed(_merged_mappings(value_node)):
                    if not isinstance(mapping, MappingNode):
                        rule = "<< must be a mapping or a list of mappings"
                        self.fail(mapping, f"{rule}, got {_kind(mapping)}", "write an alias")
                    merged |= self.plain(mapping, inside)
            else:
                direct[key] = self.plain(value_node, inside)
        return merged | direct

    def key(self, node: Node) -> str:
        """A key, which must be a word: a number is probably a value in the wrong place."""
        if not isinstance(node, ScalarNode) or node.tag not in TEXT_TAGS:
            self.fail(node, f"a key must be a word, got {_kind(node)}", "write `word: value`")
        return str(node.value)

    def scalar(self, node: ScalarNode) -> Hashable:
        if node.tag in TEXT_TAGS:
            return str(node.value)
        if node.tag not in PLAIN_TAGS:
            self.fail(node, f"must not have a tag, got {node.tag!r}", "remove it")
        try:
            value: Hashable = self.scalars.construct_object(node)
        except (ValueError, KeyError, YAMLError):
            self.fail(node, f"must fit its tag, got {node.value!r}", "remove the tag")
        if isinstance(value, int) and abs(value) > LARGEST:
            self.fail(node, f"must be at most 2^53, got a number of {len(str(abs(value)))} digits", "write a smaller number")
        return value

    def fail(self, node: Node, message: str, hint: str) -> NoReturn:
        raise UserError(f"{self.location(node.start_mark.line + 1)}: {message}", hint, code="yaml-invalid")


def _child(node: Node | None, step: str | int, line: int) -> tuple[int, Node | None]:
    """Line and node of a key's value or of a list item; `line` and None if there is none."""
    if isinstance(node, SequenceNode) and isinstance(step, int) and 0 <= step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    if not isinstance(node, MappingNode):
        return line, None
    for key_node, value_node in node.value:
        if isinstance(key_node, ScalarNode) and key_node.value == step and not _is_merge(key_node):
            return key_node.start_mark.line + 1, value_node
    for key_node, value_node in node.value:
        for mapping in _merged_mappings(value_node) if _is_merge(key_node) else ():
            child_line, child = _child(mapping, step, line)
            if child is not None:
                return child_line, child
    return line, None


def _children(node: Node) -> list[Node]:
    """The items of a list, the values of a mapping, and the mappings that it merges."""
    if isinstance(node, SequenceNode):
        return list(node.value)
    if not isinstance(node, MappingNode):
        return []
    return [child for key, value in node.value for child in (_merged_mappings(value) if _is_merge(key) else [value])]


def _is_merge(key_node: Node) -> bool:
    return bool(key_node.tag == "tag:yaml.org,2002:merge")


def _merged_mappings(node: Node) -> list[Node]:
    return list(node.value) if isinstance(node, SequenceNode) else [node]


def _kind(node: Node) -> str:
    if isinstance(node, SequenceNode):
        return "a list"
    return "a mapping" if isinstance(node, MappingNode) else repr(node.value)
