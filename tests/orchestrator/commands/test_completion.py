"""Completion in real shells, on a terminal: the line of the help is typed, and the tab key gives what it must."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.commands.completion import script
from orchestrator.commands.parser import make_parser
from orchestrator.commands.shell_functions import SHELLS
from orchestrator.commands.table import COMMANDS
from tests import ROOT
from tests.support.shells import interactive_shell

START = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}
PATHS = ("FILE", "FOLDER", "PNG", "FOLDER|URI")
# What is typed, the tab key included -> what the line is then.
COMPLETED = {
    "drive-sweep rep\t": "drive-sweep report ",
    "drive-sweep report dig\t": "drive-sweep report digits ",
    "drive-sweep report --storage oth\t": r"drive-sweep report --storage other/",
    "drive-sweep report --storage other \t": "drive-sweep report --storage other elsewhere ",
    "drive-sweep plan fash\t": "drive-sweep plan fashion-mnist ",
    "drive-sweep plan my-\t": "drive-sweep plan my-sweep.yaml ",
    "drive-sweep guide re\t": "drive-sweep guide results ",
    "drive-sweep resume digits --only f\t": "drive-sweep resume digits --only failed ",
    "drive-sweep compare digits --method im\t": "drive-sweep compare digits --method imp ",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two storages, a sweep file, and a program `drive-sweep`."""
    for sweep in ("runs/sweeps/digits", "runs/sweeps/tiny", "other/sweeps/elsewhere"):
        (tmp_path / sweep).mkdir(parents=True)
        (tmp_path / sweep / "trials.json").touch()
    (tmp_path / "runs/sweeps/digits-without-trials").mkdir()
    (tmp_path / "my-sweep.yaml").touch()
    (tmp_path / "my-notes.txt").touch()
    program = tmp_path / "drive-sweep"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m orchestrator.cli "$@"\n')
    program.chmod(0o755)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    path = f"{folder}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}


def start_line(shell: str) -> str:
    """The line for a start file, as the help has it."""
    return next(line.split(maxsplit=1)[1] for line in COMMANDS["completion"].description.splitlines() if f" {shell}" in line)


@pytest.mark.process
@pytest.mark.parametrize("name", START)
def test_the_tab_key_completes_in_a_shell_with_the_line_of_the_help(name: str, folder: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    with interactive_shell(START[name], folder, environment(folder)) as shell:
        shell.type("PS1='ready''> '\n")
        shell.read("ready> ")
        shell.type(f"{start_line(name)}; rm {folder}/drive-sweep; echo made''-it\n")
        shell.read("made-it(.|\n)*ready> ")
        for typed, line in COMPLETED.items():
            shell.type(typed)
            shell.read(f"{line}$")
            shell.type("\x15")  # empties the line


@pytest.mark.process
def test_fish_completes_with_the_line_of_the_help(folder: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish here")
    asked = "; ".join(f"complete -C '{line}'; echo ==" for line in (typed.removesuffix("\t") for typed in COMPLETED))
    lines = f"{start_line('fish')}; rm {folder}/drive-sweep; {asked}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", lines], cwd=folder, env=environment(folder), capture_output=True, text=True, check=True
    )
    answers = [re.findall(r"^\S+", part, re.MULTILINE) for part in done.stdout.split("==\n")[:-1]]
    assert answers == [[expected.split()[-1]] for expected in COMPLETED.values()], done.stdout + done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_names_every_command_and_option(shell: str) -> None:
    text = script(shell)
    for name, command in COMMANDS.items():
        assert name in text
        for flag in (flag for one in command.arguments for flag in one.flags if flag.startswith("--")):
            assert (f"-l {flag[2:]}" if shell == "fish" else flag) in text


def test_arguments_complete_what_the_script_knows() -> None:
    from orchestrator.commands.completion import words_by_kind

    paths = [one for command in COMMANDS.values() for one in command.arguments if one.settings.get("metavar") in PATHS]
    assert all(one.completes for one in paths), "what is a path is completed"
    named = {one.completes for command in COMMANDS.values() for one in command.arguments} - {""}
    assert named == set(words_by_kind())
    assert make_parser().parse_args(["completion", "zsh"]).shell == "zsh"
