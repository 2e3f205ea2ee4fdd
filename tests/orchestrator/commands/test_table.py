"""The table of commands: a toy command is an entry and a function, and every command has help and a function."""

from __future__ import annotations

import shlex
import sys
from importlib import import_module
from types import ModuleType

import pytest

from orchestrator import commands
from orchestrator.cli import main
from orchestrator.commands.parser import make_parser
from orchestrator.commands.table import COMMANDS, Command, Reach, argument


def test_toy_command_is_parsed_run_and_helped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    toy = ModuleType(f"{commands.__name__}.toy")
    toy.greet = lambda options: print(f"hello {options.who}") or 4  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, toy.__name__, toy)
    entry = Command(
        name="greet",
        module="toy",
        help="say hello",
        example="greet you",
        arguments=(argument("who", metavar="WHO", help="whom"),),
    )
    monkeypatch.setitem(COMMANDS, "greet", entry)
    assert main(["greet", "you"]) == 4
    assert capsys.readouterr().out == "hello you\n"
    assert "say hello" in make_parser().format_help()
    with pytest.raises(SystemExit) as refused:
        main(["greet"])
    assert refused.value.code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_and_a_function_wherever_it_works(name: str) -> None:
    command = COMMANDS[name]
    assert command.name == name
    assert command.help
    assert all("help" in one.settings for one in command.arguments)
    modules = {Reach.HERE: [command.module], Reach.JOBS: ["jobs"]}.get(command.reach, [command.module, "jobs"])
    for module in modules:
        assert callable(getattr(import_module(f"{commands.__name__}.{module}"), command.function))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_at_most_80_columns_and_ends_with_an_example(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = _help(name)
    assert max(map(len, text.splitlines())) <= 80
    assert text.endswith(f"\n\nexample:\n  drive-sweep {COMMANDS[name].example}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_is_a_command_line_that_the_parser_takes(name: str) -> None:
    words = shlex.split(COMMANDS[name].example.partition(" > ")[0].partition(" | ")[0])
    assert words[0] == name
    assert make_parser().parse_args(words).command == name


def _help(name: str) -> str:
    (commands,) = (action.choices for action in make_parser()._actions if action.dest == "command")
    assert isinstance(commands, dict)
    return str(commands[name].format_help())
