"""The command itself on a CPU: what it prints and writes, what it does without, and that one section cannot spoil another."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.gpu.report import Report, read_report
from tests.gpu.rows import Bench, Row, State
from tests.gpu.table import SECTIONS
from tests.gpu.worker import Worker

ABSENT = {"ray", "mlflow", "pytest", "sklearn", "pandas", "pyarrow", "pydantic", "scipy", "torch_pruning"}
PLANTED = {
    "raises": "    yield skipped('first', 'it is')\n    raise ValueError('on purpose')",
    "dies": "    os._exit(3)\n    yield",
    "hangs": "    yield skipped('first', 'it is')\n    time.sleep(60)",
    "lacks": "    bench.require_gpu('these')\n    yield",
    "works": "    yield checked('a rule', bench.folder.is_dir(), 'holds')",
}


def ask(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Report]:
    """The command's end and its report."""
    command = [sys.executable, "-m", "tests.gpu", "--device", "cpu", "--out", str(folder / "gpu.json"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=570)
    return done, read_report(folder / "gpu.json")


def test_the_command_measures_and_writes_what_it_prints(tmp_path: Path) -> None:
    done, report = ask(tmp_path, "--only", "selection")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(report.rows) == ["selection"]
    for row in report.rows["selection"]:
        assert row.name in done.stdout
    assert (report.machine["device"], report.brief) == ("cpu", True)
    assert not ABSENT & set(report.packages)


@pytest.mark.long
def test_every_section_runs_on_a_cpu_without_ray_and_mlflow(tmp_path: Path) -> None:
    done, report = ask(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(report.rows) == [section.name for section in SECTIONS]
    every = {section: [row.state for row in rows] for section, rows in report.rows.items()}
    assert all(every.values())
    assert not {State.FAILED, State.NOT_RUN} & {state for states in every.values() for state in states}
    assert {section for section, states in every.items() if set(states) == {State.SKIPPED}} <= {"several_workers"}
    assert {"torch", "trainables"} <= set(report.packages)
    assert not ABSENT & set(report.packages)


def files() -> Iterator[Path]:
    folder = ROOT / "tests/gpu"
    return (file for file in folder.rglob("*.py") if not file.name.startswith("test_"))


def test_no_file_imports_at_its_head_what_the_machine_lacks() -> None:
    assert len(list(files())) > 20
    for file in files():
        for node in ast.parse(file.read_text()).body:
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not (ABSENT | {"orchestrator"}) & {name.partition(".")[0] for name in names}, file


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of sections that do what their names say."""
    (tmp_path / "planted").mkdir()
    for name, body in PLANTED.items():
        head = "import os, time\nfrom tests.gpu.rows import checked, skipped\n\ndef measure(bench):\n"
        (tmp_path / "planted" / f"{name}.py").write_text(head + body)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.process
@pytest.mark.usefixtures("planted")
def test_a_section_that_fails_spoils_no_other(tmp_path: Path) -> None:
    worker = Worker("planted")

    def rows(section: str, limit_s: float = 30.0) -> list[Row]:
        return list(worker.rows(section, Bench(device="cpu", brief=True, folder=tmp_path, seconds=1.0), limit_s))

    try:
        works = rows("works")
        assert [row.state for row in works] == [State.PASSED]
        first = worker._process.pid
        assert [(row.state, row.note) for row in rows("lacks")] == [(State.SKIPPED, "these need a CUDA device")]
        assert worker._process.pid == first
        assert [row.note for row in rows("raises")] == ["it is", "ValueError: on purpose"]
        assert rows("works") == works
        assert [row.note for row in rows("dies")] == ["its process died with exit code 3"]
        assert [row.note for row in rows("hangs", 1.0)] == ["it is", "it did not end in its time, and was ended"]
        assert rows("works") == works
        assert worker._process.pid != first
    finally:
        worker.end()
