"""Every error of the command line has a stable code, to search for and to test by."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.errors import SetupError, SweepError, split_code, with_code
from tests import ROOT
from tests.support.cli import drive_sweep

ERRORS = ("SweepError", "UserError", "SetupError")
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def sources() -> list[Path]:
    return sorted((ROOT / "orchestrator").rglob("*.py"))


def problems(source: str) -> list[str]:
    """Errors that are made without a code, with one that is not in kebab case, or with a hint inside the message.

    A code may also be that of another error, which is passed on: `code=error.code`.
    """
    result = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS):
            continue
        code = next((keyword.value for keyword in node.keywords if keyword.arg == "code"), None)
        passed_on = isinstance(code, ast.Attribute) and code.attr == "code"
        literal = isinstance(code, ast.Constant) and isinstance(code.value, str) and CODE.fullmatch(code.value)
        if not (passed_on or literal):
            result.append(f"line {node.lineno}: no code")
        texts = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)] if node.args else []
        if any("; " in text for text in texts if isinstance(text, str)):
            result.append(f"line {node.lineno}: a hint in the message")
    return result


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_error_has_a_code(file: Path) -> None:
    assert problems(file.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        'raise UserError("no sweep", "give another")',
        'raise SetupError("no sweep", code="NoSweep")',
        'raise SweepError("no sweep", code=name)',
        'raise UserError(f"no sweep {name}; give another", code="sweep-not-found")',
    ],
)
def test_the_reader_sees_an_error_without_a_code(line: str) -> None:
    assert len(problems(line)) == 1


def test_the_reader_accepts_errors_with_codes() -> None:
    lines = 'raise UserError("no", "do", code="sweep-not-found")\nraise SetupError(str(error), code=error.code)'
    assert problems(lines) == []


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (SweepError("bad", "fix it", code="some-code"), "bad; fix it [some-code]"),
        (SetupError("first\nsecond", code="a1"), "first\nsecond [a1]"),
        (SweepError("no code [SQL: x]"), "no code [SQL: x]"),
    ],
)
def test_a_printed_error_gives_back_its_code(error: SweepError, printed: str) -> None:
    assert with_code(str(error), error.code) == printed
    assert split_code(printed) == (str(error), error.code)


def test_a_command_prints_the_code_of_its_error(tmp_path: Path) -> None:
    answer = drive_sweep("status", "nothing", "--storage", tmp_path / "runs", expect=2)
    sweeps = "sweeps there: none (another storage: --storage)"
    assert answer.stderr == f"drive-sweep: no sweep 'nothing' in storage {tmp_path}/runs; {sweeps} [sweep-not-found]\n"


def test_an_error_of_the_storage_has_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["run", "digits", "--storage", str(tmp_path / "file" / "runs")]) == 3
    assert capsys.readouterr().err.endswith(" [storage-unavailable]\n")
