"""Every command that a message prints can be pasted: all go through one function, all parse, and those of a storage are run."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from argparse import Namespace
from functools import cache
from pathlib import Path

import pytest

from orchestrator import command_line
from orchestrator.cli import main
from orchestrator.command_line import DEFAULT_STORAGE, command, note_options, note_sweep
from orchestrator.commands.parser import make_parser
from orchestrator.execution.driver import initial_state, make_queue
from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.factory import open_storage
from orchestrator.version import source_revision
from tests import ROOT
from tests.support.cli import tiny_sweep

SOURCES = [*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "trainables").rglob("*.py")]
COMMANDS = list(next(action.choices or {} for action in make_parser()._actions if action.dest == "command"))
WRITTEN_OUT = re.compile(rf"drive-sweep ({'|'.join(COMMANDS)})\b")
PRINTED = re.compile(r"`(drive-sweep [^`]*)`|: (drive-sweep .*)$", re.MULTILINE)
ADDRESSES = [None, "http://127.0.0.1:9", "127.0.0.1:9"]


@pytest.fixture(autouse=True)
def nothing_invoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "_running", command_line.Invocation())
    monkeypatch.setenv(command_line.INVOCATION_VARIABLE, "{}")


def docstrings(tree: ast.AST) -> set[int]:
    """The ids of the nodes that are docstrings."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    firsts = [node.body[0] for node in ast.walk(tree) if isinstance(node, owners) and node.body]
    return {id(first.value) for first in firsts if isinstance(first, ast.Expr)}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_no_message_writes_a_command_out(file: Path) -> None:
    tree = ast.parse(file.read_text())
    excluded = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in excluded:
            assert not WRITTEN_OUT.search(node.value), f"{file.name}:{node.lineno}: use command_line.command"


@cache
def calls() -> list[list[str]]:
    """The constant arguments of every call of `command`, a placeholder for what is computed."""
    result = []
    for file in SOURCES:
        if file.stem == "cli":  # which has another function of that name
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command" and node.args:
                words = [
                    str(word.value) if isinstance(word, ast.Constant) else "x"
                    for word in node.args
                    if not isinstance(word, ast.Starred)
                ]
                result += [words] if words[0] in COMMANDS else []
    return result


@pytest.mark.parametrize("storage", [None, "other", "/data/my runs", "s3://bucket/a?region=x&scheme=http", "file:///a b"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_every_command_parses_and_keeps_storage_and_address(storage: str | None, address: str | None) -> None:
    assert len(calls()) > 25
    settings = {"set": ["a=[1, 2]"], "name": "n", "tracking_uri": "http://m"}
    note_options(Namespace(command="run", file="my sweep.yaml", **settings, storage=storage, address=address))
    note_sweep("n", storage or DEFAULT_STORAGE)
    dashboard = bool(address and address.startswith("http"))
    parser = make_parser()
    for words in calls():
        line = command(*words)
        program, *rest = shlex.split(line)
        parsed = vars(parser.parse_args(rest))
        assert program == "drive-sweep"
        if parsed.get("file") == "my sweep.yaml" and words[0] != "doctor":
            assert settings.items() <= parsed.items()
        if words[0] in (command_line.DASHBOARD_COMMANDS if dashboard else command_line.JOINING_COMMANDS):
            assert parsed["address"] == address, line
        if "storage" in parsed and parsed["storage"] != "FOLDER" and not (dashboard and parsed.get("address")):
            assert (parsed["storage"] or DEFAULT_STORAGE).startswith(("s3://", "/", DEFAULT_STORAGE)), line
            assert (parsed["storage"] is None) == (storage is None), line


def test_command_omits_the_default_storage_only() -> None:
    note_options(Namespace(command="resume", name="tiny", storage="./runs"))
    assert command("resume", "tiny") == "drive-sweep resume tiny"
    note_options(Namespace(command="resume", name="tiny", storage="my runs"))
    assert command("resume") == f"drive-sweep resume tiny --storage {shlex.quote(str(Path('my runs').absolute()))}"


def test_a_job_names_the_dashboard_at_which_the_user_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(command_line.JOBS_API_VARIABLE, "http://head:8265")
    note_options(Namespace(command="status", name="tiny", storage="/shared", address=None))
    assert command("resume", "tiny") == "drive-sweep resume tiny --address http://head:8265"
    assert command("sync", "tiny") == "drive-sweep sync tiny --storage /shared"


def test_child_processes_name_the_options_of_their_parent() -> None:
    note_options(Namespace(command="sync", name="tiny", storage="/a b", tracking_uri="http://m"))
    code = "from orchestrator.command_line import command; print(command('sync'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "drive-sweep sync tiny --tracking-uri http://m --storage '/a b'\n"


@pytest.fixture
def unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, SweepFolder, SweepState]:
    """A sweep that has not begun, in a storage whose path has a space and that is not below the current folder."""
    folder = tmp_path / "my work"
    folder.mkdir()
    file = tiny_sweep(folder)
    storage = open_storage(str(folder / "my runs"), create=True)
    plan = make_plan(load_spec(str(file), [f"storage={storage.root!r}"]), storage, hash_data=True)
    sweep = SweepFolder(storage, "tiny")
    write_sweep_files(sweep, plan, file.read_text())
    state = initial_state(plan, None, make_queue(plan, storage, lambda key: True))
    sweep.write_state(state)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return file, sweep, state


def printed(text: str) -> list[str]:
    return [one or other for one, other in PRINTED.findall(text)]


@pytest.mark.slow
def test_commands_that_are_printed_work_as_they_are(
    unfinished: tuple[Path, SweepFolder, SweepState], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message is provoked; what it prints is run, from another folder, and must not be refused as wrong input."""
    file, folder, state = unfinished
    monkeypatch.setenv("COLUMNS", "40")  # a line that is wrapped cannot be pasted
    storage = ["--storage", folder.storage.root]

    def provoke(*arguments: object) -> list[str]:
        capsys.readouterr()
        main([str(one) for one in arguments])
        output = capsys.readouterr()
        lines = printed(output.out + output.err)
        assert lines, output
        return lines

    lines = provoke("init", file.parent / "new sweep.yaml")
    state.tracking_pending = 3
    folder.write_state(state)
    lines += provoke("status", "tiny", *storage)
    lines += provoke("resume", "tiny", "--trial", "nothing", *storage)
    lines += provoke("ui", "tiny", *storage)
    lines += provoke("plan", "nothing.yaml", *storage)
    lines += provoke("run", file, "--address", ADDRESSES[1], *storage, "--tracking-uri", "http://127.0.0.1:9", "--name", "n")
    state.driver = this_driver()
    folder.write_state(state)
    lines += provoke("resume", "tiny", *storage)
    state.driver = {}
    folder.write_state(state)
    names = {line.split()[1] for line in lines}
    assert names == {"plan", "sync", "resume", "status", "init", "submit", "stop"}
    for line in lines:
        words = shlex.split(line)[1:]
        words += {"resume": ["--dry-run"], "sync": ["--tracking-uri", f"sqlite:///{file.parent}/m.db"]}.get(words[0], [])
        code = main(words)
        output = capsys.readouterr()
        assert code == (3 if words[0] == "submit" else 0), f"{line}: {output}"  # nothing listens at the address
        assert "my runs" in line or words[0] in ("init", "plan"), line
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["sweep.yaml"]  # of `init`, and no second storage


def test_the_last_words_of_a_run_work_as_they_are(
    unfinished: tuple[Path, SweepFolder, SweepState], capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.commands.run import print_outcome
    from orchestrator.errors import EXIT_DONE, EXIT_SIGINT

    file, folder, _ = unfinished
    note_options(Namespace(command="run", file=str(file), set=[], name=None, tracking_uri=None, storage=folder.storage.root))
    for code, expected in ((EXIT_DONE, ["resume", "ui"]), (EXIT_SIGINT, ["resume"])):
        print_outcome(folder, Namespace(json=False), code)
        lines = printed(capsys.readouterr().err)
        assert [line.split()[1] for line in lines] == expected
        for line in lines:
            words = shlex.split(line)[1:]
            assert main([*words, "--dry-run"] if words[0] == "resume" else words) == (0 if words[0] == "resume" else 2)
            output = capsys.readouterr().err
            assert words[0] == "resume" or "MLflow has no runs of sweep 'tiny' yet" in output


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"drive-sweep {source_revision()}\n"
