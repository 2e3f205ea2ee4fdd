"""Sweep files as text: loaded from the current folder unless that is the checkout, or rejected with the lines of the error."""

from __future__ import annotations

from contextlib import chdir, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator.errors import EXIT_USER, UserError
from orchestrator.spec.loader import load_spec
from orchestrator.spec.schema import SweepSpec
from tests import ROOT

BASE = "name: x\ndataset: {name: digits}\nmodel: convnet\n"


def load_text(text: str, *options: str) -> SweepSpec:
    with TemporaryDirectory() as folder, chdir(folder) if Path.cwd() == ROOT else nullcontext():
        Path("s.yaml").write_text(text)
        return load_spec("s.yaml", options)


def error_lines(text: str, *options: str) -> list[str]:
    """Lines of the error for an invalid sweep file."""
    with pytest.raises(UserError) as error:
        load_text(text, *options)
    assert (error.value.exit_code, bool(error.value.code)) == (EXIT_USER, True)
    return str(error.value).split("\n")
