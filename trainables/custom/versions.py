"""The version that a user's file declares, read from its syntax; nothing is executed."""

from __future__ import annotations

import ast

NAME = "__version__"


def declared_version(source: bytes) -> str | None:
    """The text of `__version__ = "..."` at the top level of a Python file; None where there is no such line, or several."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # its import will say what is wrong
    values = [value for statement in tree.body if (value := _assigned(statement)) is not None]
    value = values[0] if len(values) == 1 else None
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value.strip():
        return value.value
    return None


def _assigned(statement: ast.stmt) -> ast.expr | None:
    """What a statement assigns to the name; None if it assigns nothing to it."""
    if isinstance(statement, ast.Assign):
        targets: list[ast.expr] = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return None
    return statement.value if any(isinstance(one, ast.Name) and one.id == NAME for one in targets) else None
