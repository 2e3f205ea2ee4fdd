"""Loads the code of a method; the table of methods names it as text, so that it imports nothing heavy."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load_implementation(reference: str) -> Any:
    """The object at "MODULE:NAME"."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
