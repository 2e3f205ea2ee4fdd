"""The command `completion`: a script by which a shell completes commands, options, sweeps and files.

The script asks nothing of this program, so that an answer takes milliseconds: sweeps are found by a pattern of file names in
the folder that `--storage` names, else in the default one. Those of an object store are not offered.
"""

from __future__ import annotations

import argparse

from orchestrator.commands.guide import topics
from orchestrator.commands.parser import make_parser
from orchestrator.commands.shell_functions import SHELLS, Words
from orchestrator.errors import EXIT_DONE
from orchestrator.process.output import answer


def completion(options: argparse.Namespace) -> int:
    answer(script(options.shell))
    return EXIT_DONE


def words_by_kind() -> dict[str, Words]:
    """What arguments name in `completes` -> what a shell offers for it. A new kind is a new entry."""
    from orchestrator.spec.presets import preset_names
    from trainables.config.methods import METHODS

    presets = tuple(preset_names())
    return {
        "sweep": Words(sweeps=True),
        "sweep file": Words(fixed=presets, patterns=("*.yaml", "*.yml")),
        "preset": Words(fixed=presets),
        "topic": Words(fixed=tuple(topics())),
        "method": Words(fixed=tuple(sorted(METHODS))),
        "file": Words(patterns=("*",)),
        "folder": Words(folders=True),
    }


def script(shell: str) -> str:
    """The script for one of SHELLS, to be evaluated by it."""
    import shtab

    functions, kinds = SHELLS[shell], words_by_kind()
    parser = make_parser()
    for action in _actions(parser):
        if kind := getattr(action, "completes", ""):
            action.complete = {shell: functions.call(_name(kind, kinds[kind]))}  # type: ignore[attr-defined]
    preamble = [functions.common, *(functions.define(_name(kind, words), words) for kind, words in kinds.items())]
    text: str = shtab.complete(parser, shell, preamble="\n".join(preamble))
    return text


def _name(kind: str, words: Words) -> str:
    """The function of a kind. By "_file" in its name shtab knows for bash that its words are paths."""
    return f"_drive_sweep_{'files_of_' if words.has_paths else ''}{kind.replace(' ', '_')}"


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The actions of a parser and of its commands."""
    actions = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            actions += [each for one in action.choices.values() for each in one._actions]
    return actions
