"""The command `guide`: topics, how one is printed, and what it does not import."""

from __future__ import annotations

import sys
import tomllib

import pytest

from orchestrator.cli import main
from orchestrator.commands.guide import print_topic, summary, topics
from orchestrator.errors import EXIT_USER, UserError
from tests import ROOT
from tests.orchestrator.test_cli import modules_after

METHODS = (ROOT / "orchestrator/guide/methods.md").read_text()


def test_guide_lists_topics_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guide"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(file.stem for file in (ROOT / "orchestrator/guide").glob("*.md"))
    assert [line.split(maxsplit=1)[1] for line in lines] == [summary(text) for text in topics().values()]
    assert "`drive-sweep guide TOPIC`" in captured.err


def test_guide_prints_markdown_where_stdout_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guide", "methods"]) == 0
    assert capsys.readouterr().out == METHODS


def test_guide_renders_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    print_topic("methods")
    rendered = capsys.readouterr().out
    assert summary(METHODS) in rendered
    assert "# " + summary(METHODS) not in rendered
    assert "|---|" not in rendered
    assert "<!--" not in rendered


def test_an_unknown_topic_names_the_closest_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guide", "metods"]) == EXIT_USER
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "must be a topic, got 'metods'; did you mean 'methods'? topics are assumptions, channels, " in captured.err


def test_an_unknown_topic_has_a_code() -> None:
    with pytest.raises(UserError) as raised:
        print_topic("xyz")
    assert raised.value.code == "topic-unknown"
    assert raised.value.hint.startswith("topics are assumptions, ")


@pytest.mark.parametrize("arguments", [("guide",), ("guide", "methods")])
def test_guide_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert modules_after(*arguments) == set()


def test_every_file_beside_the_code_is_in_the_package() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package, patterns in data.items():
        folder = ROOT / package
        files = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
        assert files == {path for pattern in patterns for path in folder.glob(pattern)}
