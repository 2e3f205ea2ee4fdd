"""Imports are read from the syntax of a source, at any depth and with relative ones resolved."""

from __future__ import annotations

import pytest

from trainables.custom.source_imports import imports_of

SOURCE = """\
import os, a.b as c
from d.e import f, g as h

def later():
    from . import sibling
    from ..cousin import i
    from .sub.deep import *
"""


def test_imports_of_finds_all_imports() -> None:
    assert sorted(imports_of(SOURCE, ("top", "package"))) == [
        ("a.b", ()),
        ("d.e", ("f", "g")),
        ("os", ()),
        ("top.cousin", ("i",)),
        ("top.package", ("sibling",)),
        ("top.package.sub.deep", ("*",)),
    ]


def test_relative_imports_outside_a_package_have_no_parent() -> None:
    assert list(imports_of("from . import x\nfrom .y import z\n")) == [("", ("x",)), ("y", ("z",))]


@pytest.mark.parametrize("source", ["def f(:", b"\x00", "import ("])
def test_source_that_is_not_python_is_an_error(source: str | bytes) -> None:
    with pytest.raises((SyntaxError, ValueError)):
        list(imports_of(source))
