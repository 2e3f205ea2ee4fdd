"""The parser of the command line, made from the table of commands."""

from __future__ import annotations

from argparse import Action, ArgumentParser, HelpFormatter, Namespace
from textwrap import fill
from typing import Any

from orchestrator.command_line import PROGRAM
from orchestrator.commands.table import COMMANDS

DESCRIPTION = "Search warm-up length and iteration count of DRIVE pruning."


def make_parser() -> ArgumentParser:
    """The parser of all commands; what an argument completes is the attribute `completes` of its action."""
    parser = ArgumentParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=_example("run digits"),
        formatter_class=_Help,
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="print the version of this code and exit")
    added = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        options = added.add_parser(
            command.name,
            help=command.help,
            description=command.description or command.help,
            epilog=_example(command.example),
            formatter_class=_Help,
        )
        for argument in command.arguments:
            action = options.add_argument(*argument.flags, **argument.settings)
            action.completes = argument.completes  # type: ignore[attr-defined]
    return parser


class _ShowVersion(Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None) -> None:
        from orchestrator.version import source_revision

        print(f"{PROGRAM} {source_revision()}")
        parser.exit()


class _Help(HelpFormatter):
    """Wraps prose, and keeps indented lines, which can be pasted."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()
        return "\n".join(line if line.startswith(" ") else fill(line, width) for line in lines)


def _example(line: str) -> str:
    """A command line, as it stands at the end of a help text."""
    return f"example:\n  {PROGRAM} {line}"
