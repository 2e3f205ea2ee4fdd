"""The parser of the command line, made from the table of commands."""

from __future__ import annotations

from argparse import ArgumentParser, HelpFormatter
from textwrap import fill

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


class _Help(HelpFormatter):
    """Wraps prose, and keeps indented lines, which can be pasted."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()
        return "\n".join(line if line.startswith(" ") else fill(line, width) for line in lines)


def _example(line: str) -> str:
    """A command line, as it stands at the end of a help text."""
    return f"example:\n  {PROGRAM} {line}"
