"""The imports of a Python source, read from its syntax; nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def imports_of(source: str | bytes, package: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Module and names of each import anywhere in the source; `import x` has no names.

    Args:
        package: of the source, which relative imports are resolved in.

    Raises:
        SyntaxError, ValueError: the source is not Python.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = (*parents, node.module) if node.module else parents
            yield ".".join(module), tuple(alias.name for alias in node.names)
