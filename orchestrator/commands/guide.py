"""The command `guide`: the user's guide, one Markdown file a topic, shipped with the package."""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib import resources

from orchestrator.command_line import command
from orchestrator.errors import EXIT_DONE, UserError
from orchestrator.process.output import answer


def guide(options: Namespace) -> int:
    if options.topic is None:
        print_topics()
    else:
        print_topic(options.topic)
    return EXIT_DONE


def topics() -> dict[str, str]:
    """Topic -> its text, sorted by name."""
    files = [file for file in resources.files("orchestrator").joinpath("guide").iterdir() if file.name.endswith(".md")]
    return {file.name.removesuffix(".md"): file.read_text(encoding="utf-8") for file in sorted(files, key=lambda one: one.name)}


def summary(text: str) -> str:
    """The heading of a topic, which is one line that says what the topic is about."""
    return text.splitlines()[0].removeprefix("# ")


def print_topics() -> None:
    width = max(map(len, topics()))
    for name, text in topics().items():
        answer(f"{name:{width}}  {summary(text)}")
    print(f"`{command('guide', 'TOPIC')}` prints one of them", file=sys.stderr)


def print_topic(name: str) -> None:
    """Rendered on a terminal, as Markdown elsewhere. Raises UserError if there is no such topic."""
    known = topics()
    if name not in known:
        from orchestrator.spec.error_messages import closest_match

        near = closest_match(name, known)
        hint = (f"did you mean {near!r}? " if near else "") + f"topics are {', '.join(known)}"
        raise UserError(f"guide: must be a topic, got {name!r}", hint, code="topic-unknown")
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(known[name]))
    else:
        answer(known[name], end="")
