"""YAML text -> plain values, and the line on which each of them was written.

YAML 1.2: 1e-4 is a number, `off` and `yes` are words, a date is a word. A key may stand only once in a mapping. A path is
the keys and indices that lead to a value, such as ("search", "sparsity", 2).
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

from orchestrator.command_line import command
from orchestrator.errors import UserError
from trainables.wording import shortened

KeyPath = tuple[str | int, ...]

PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")}
TEXT_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "value", "merge")}
COLLECTION_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq")}
WAYS_OUT = {  # part of what the parser says -> what to do about it
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
    """A mapping as plain dicts, lists and scalars; `line` tells where its parts were written."""

    data: dict[str, Any]
    root: Node

    def line(self, path: KeyPath) -> int:
        """1-based line of a key or list item; of its nearest parent where there is no such part."""
        node: Node | None = self.root
        line: int = self.root.start_mark.line + 1
        for step in path:
            line, node = _part(node, step, line)
            if node is None:
                break
        return line


def parse(text: str, file: str) -> Document:
    """The document in `text`; `file` is its name in messages.

    Raises:
        UserError: not YAML, a key written twice or not a word, or no mapping at the top.
    """

    def place(line: int) -> str:
        return f"{file}:{line}"

    root = _composed(text, place)
    if not isinstance(root, MappingNode):
        line, found = (1, "nothing") if root is None else (root.start_mark.line + 1, _kind(root))
        raise UserError(
            f"{place(line)}: must be a mapping of keys, got {found}; `{command('init')}` writes a file to start from"
        )
    return Document(_Reader(place).plain(root), root)


def parse_value(text: str, place: str) -> Any:
    """The value that is written on a command line; `place` is the option's name in messages."""
    root = _composed(text, lambda line: place)
    return None if root is None else _Reader(lambda line: place).plain(root)


def _composed(text: str, place: Callable[[int], str]) -> Node | None:
    """The tree of nodes, whose tags say what the plain scalars are."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an anchor that is used again is fine
            root: Node | None = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = f"{error.context or ''} {error.problem or ''}"
        if "flow" in told or "quoted" in told:
            mark = error.context_mark or mark  # where the bracket was opened, not where the file ends
        lines = text.splitlines() or [""]
        number = min(mark.line if mark else 0, len(lines) - 1)
        written = lines[number]
        way_out = next((way for part, way in WAYS_OUT.items() if part in told), "write the value in quotes")
        if "\t" in written[: len(written) - len(written.lstrip())]:
            way_out = WAYS_OUT["'\\t'"]
        raise UserError(f"{place(number + 1)}: must be YAML, got {shortened(written, 60)!r}; {way_out}") from None
    except RecursionError:
        raise UserError(f"{place(1)}: must be nested less deeply, got hundreds of levels; a sweep file has three") from None
    except ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        raise UserError(f"{place(number)}: must be text, got the character {chr(error.character)!r}; remove it") from None
    return root


class _Reader:
    """Nodes -> values; `place` names a line in messages. What an anchor names is read once, however often it is used."""

    def __init__(self, place: Callable[[int], str]) -> None:
        self.place = place
        self.known: dict[int, Any] = {}
        self.scalars = YAML(typ="safe", pure=True).constructor

    def plain(self, node: Node, inside: tuple[Node, ...] = ()) -> Any:
        if any(node is outer for outer in inside):
            self.fail(node, "must not contain itself, got an alias of an outer value; write it out")
        if id(node) not in self.known:
            self.known[id(node)] = self.scalar(node) if isinstance(node, ScalarNode) else self.collection(node, (*inside, node))
        return self.known[id(node)]

    def collection(self, node: Node, inside: tuple[Node, ...]) -> Any:
        if node.tag not in COLLECTION_TAGS:
            self.fail(node, f"must not have a tag, got {node.tag!r}; remove it")
        if isinstance(node, SequenceNode):
            return [self.plain(item, inside) for item in node.value]
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.key(key_node)
            if key in first_line:
                told = f"must not be written twice, got {key!r} also on line {first_line[key]}; remove one of them"
                raise UserError(f"{self.place(line)}: {key} {told}")
            first_line[key] = line
            if _is_merge(key_node):
                for mapping in reversed(_merged_mappings(value_node)):
                    if not isinstance(mapping, MappingNode):
                        self.fail(mapping, f"<< must be a mapping or a list of mappings, got {_kind(mapping)}; write an alias")
                    merged |= self.plain(mapping, inside)
            else:
                own[key] = self.plain(value_node, inside)
        return merged | own

    def key(self, node: Node) -> str:
        """Every key is a word; a number must have been meant as a value."""
        if not isinstance(node, ScalarNode) or node.tag not in TEXT_TAGS:
            self.fail(node, f"a key must be a word, got {_kind(node)}; write `word: value`")
        return str(node.value)

    def scalar(self, node: ScalarNode) -> Hashable:
        if node.tag in TEXT_TAGS:
            return str(node.value)
        if node.tag not in PLAIN_TAGS:
            self.fail(node, f"must not have a tag, got {node.tag!r}; remove it")
        try:
            value: Hashable = self.scalars.construct_object(node)
        except (ValueError, KeyError, YAMLError):
            self.fail(node, f"must fit its tag, got {node.value!r}; remove the tag")
        return value

    def fail(self, node: Node, told: str) -> NoReturn:
        raise UserError(f"{self.place(node.start_mark.line + 1)}: {told}")


def _part(node: Node | None, step: str | int, line: int) -> tuple[int, Node | None]:
    """Line and node of one part; the given line and None where there is no such part."""
    if isinstance(node, SequenceNode) and isinstance(step, int) and 0 <= step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    if not isinstance(node, MappingNode):
        return line, None
    for key_node, value_node in node.value:
        if isinstance(key_node, ScalarNode) and key_node.value == step and not _is_merge(key_node):
            return key_node.start_mark.line + 1, value_node
    for key_node, value_node in node.value:
        for mapping in _merged_mappings(value_node) if _is_merge(key_node) else ():
            found_line, found = _part(mapping, step, line)
            if found is not None:
                return found_line, found
    return line, None


def _is_merge(key_node: Node) -> bool:
    return bool(key_node.tag == "tag:yaml.org,2002:merge")


def _merged_mappings(node: Node) -> list[Node]:
    return list(node.value) if isinstance(node, SequenceNode) else [node]


def _kind(node: Node) -> str:
    if isinstance(node, SequenceNode):
        return "a list"
    return "a mapping" if isinstance(node, MappingNode) else repr(node.value)
