"""Where words go, in processes of their own: answers alone on stdout, readers that leave, closed terminals, odd encodings."""

from __future__ import annotations

import ast
import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.support.cli import command, drive_sweep, status, wait_for

LOUD = """
import os, subprocess, sys, warnings
print("python at import")
os.write(1, b"C at import\\n")
subprocess.run(["echo", "a child at import"])
warnings.warn("a warning at import")

def net(image_shape, num_classes):
    from torch import nn
    print("python in the function")
    os.write(1, b"C in the function\\n")

    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, num_classes)

        def forward(self, images):
            print("python in forward")
            return self.layer(images.flatten(1))

    return Loud()
"""
SWEEP = """\
name: loud
dataset: {{name: digits, limit: 300}}
model: {{module: loud.net}}
modules_path: {folder}
search: {{seed: [0, 1, 2]}}
warmup_epochs: 1
sparsity: 0.5
training: {{epochs: {epochs}, batch_size: 50, lr: 0.1}}
precision: fp32
resources: {{device: cpu, cpus_per_trial: 1}}
checkpoint_seconds: 0
"""


def loud_sweep(folder: Path, epochs: int) -> Path:
    (folder / "loud.py").write_text(LOUD)
    file = folder / "loud.yaml"
    file.write_text(SWEEP.format(folder=folder, epochs=epochs))
    return file


def in_process(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """What a process says that prepared its streams as commands do."""
    script = f"import os, sys\nfrom orchestrator.process.setup import prepare_process\nprepare_process()\n{code}"
    return subprocess.run([sys.executable, "-c", script], text=True, cwd=ROOT, check=False, timeout=60, **options)


def test_only_answers_reach_stdout_whoever_prints() -> None:
    code = """
from orchestrator.process.output import answer, reserve_stdout
with reserve_stdout(True):
    print("python")
    os.write(1, b"C\\n")
    os.system("echo child")
    answer('{"a": 1}')
print("after")
os.write(1, b"C after\\n")
"""
    done = in_process(code, capture_output=True)
    assert json.loads(done.stdout.splitlines()[0]) == {"a": 1}
    assert sorted(done.stdout.splitlines()[1:]) == ["C after", "after"]
    assert {"python", "C", "child"} <= set(done.stderr.splitlines())


def test_no_command_prints_json_past_the_stream_of_answers() -> None:
    """`print(json.dumps(...))` would reach stderr with --json."""
    for file in (ROOT / "orchestrator").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            assert not ast.unparse(node).startswith("print(json.dumps"), f"{file.name}:{node.lineno}"  # type: ignore[attr-defined]


def test_a_trial_of_a_loud_module_answers_in_json_alone(tmp_path: Path) -> None:
    file = loud_sweep(tmp_path, epochs=1)
    answer = drive_sweep("trial", file, "--index", 0, "--json", "--storage", tmp_path / "runs")
    assert json.loads(answer.stdout)["kept_weights"] == 320
    for line in ("python at import", "C at import", "a child at import", "python in the function", "python in forward"):
        assert line in answer.stderr


@pytest.mark.long
def test_a_closed_terminal_stops_a_sweep_as_a_signal_does(tmp_path: Path) -> None:
    """The terminal hangs up, and with it stderr and all processes of the terminal; the answer on stdout is whole."""
    file, storage = loud_sweep(tmp_path, epochs=400), tmp_path / "runs"
    reader, writer = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.chdir(ROOT)
        os.execv(sys.executable, command("run", file, "--storage", storage, "--json"))
    os.close(writer)
    os.set_blocking(terminal, False)

    def in_mid_trial() -> list[Path]:
        with suppress(OSError):  # a terminal that nobody reads would hold the sweep up
            os.read(terminal, 1 << 20)
        return list(storage.glob("trials/*/checkpoint"))

    try:
        wait_for(in_mid_trial)
        os.close(terminal)
        with open(reader) as answers:
            answer = json.loads(answers.read())
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, code = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(code) == 128 + signal.SIGHUP
    states = Counter(trial["state"] for trial in answer["trials"])
    assert states["stopped"] >= 1
    assert set(states) <= {"stopped", "waiting", "finished"}
    assert "stopping: waiting for checkpoints" in drive_sweep("logs", "loud", "--storage", storage).stdout
    assert status("loud", storage)["driver_alive"] is False
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert runs
    assert "RUNNING" not in {run.info.status for run in runs}


def test_nohup_keeps_sighup_ignored_unlike_a_plain_start() -> None:
    code = """
import signal
from orchestrator.process.setup import stop_signals
print(signal.SIGHUP in stop_signals(), flush=True)
try:
    os.kill(os.getpid(), signal.SIGHUP)
    print("goes on", flush=True)
finally:
    print("in order", flush=True)
"""
    plain = in_process(code, capture_output=True)
    assert (plain.returncode, plain.stdout) == (128 + signal.SIGHUP, "True\nin order\n")
    ignored = in_process(code, capture_output=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert (ignored.returncode, ignored.stdout) == (0, "False\ngoes on\nin order\n")


def test_children_of_a_driver_do_not_get_its_hangup() -> None:
    code = """
import signal, subprocess
from orchestrator.process.setup import shield_children_from_hangup
with shield_children_from_hangup():
    child = subprocess.Popen(["sleep", "30"])
other = subprocess.Popen(["sleep", "30"])
signal.signal(signal.SIGHUP, lambda *_: None)
os.killpg(0, signal.SIGHUP)
other.wait()
print(child.poll(), other.returncode)
child.kill()
"""
    done = in_process(code, capture_output=True, start_new_session=True)
    assert done.stdout == f"None {-signal.SIGHUP}\n", done.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_left_ends_nothing(stream: str) -> None:
    code = f"""
from orchestrator.process.output import reader_gone
for number in range(10):
    print("x" * 100000, file=sys.{stream}, flush=True)
open(sys.argv[1] if len(sys.argv) > 1 else os.devnull)
print(reader_gone(), file=sys.stderr if "{stream}" == "stdout" else sys.stdout)
"""
    reader, writer = os.pipe()
    os.close(reader)
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    done = in_process(code, **{stream: writer, other: subprocess.PIPE})
    os.close(writer)
    assert done.returncode == 0
    assert (done.stderr or done.stdout) == f"{stream == 'stdout'}\n"


def test_logs_that_follow_end_with_their_reader(tmp_path: Path) -> None:
    """`logs -f NAME | head -1`, of a sweep whose driver lives."""
    from orchestrator.state.driver_liveness import this_driver
    from orchestrator.state.sweep_folder import SweepFolder
    from orchestrator.state.sweep_state import SweepState
    from orchestrator.storage.factory import open_storage

    folder = SweepFolder(open_storage(str(tmp_path / "runs"), create=True), "tiny")
    folder.write_state(SweepState(sweep="tiny", driver=this_driver()))
    folder.storage.write_json(folder.file("trials.json"), {"trials": []})
    folder.log("first line")
    process = subprocess.Popen(command("logs", "tiny", "-f", "--storage", tmp_path / "runs"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "first line" in process.stdout.readline()
    process.stdout.close()
    folder.log("second line")
    assert process.wait(timeout=30) == 0


def test_full_disk_behind_stdout_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("schema"), stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert done.stderr == "drive-sweep: standard output: No space left on device; make room there [output-not-writable]\n"


def test_closed_standard_streams_are_not_taken_by_the_next_file(tmp_path: Path) -> None:
    code = f"""
file = open({str(tmp_path / "file")!r}, "w")
print(file.fileno() > 2 and not os.isatty(1), file=file)
print("lost")
print("lost", file=sys.stderr)
"""
    closed = f'exec {sys.executable} -c "$0" <&- >&- 2>&-'
    script = f"import os, sys\nfrom orchestrator.process.setup import prepare_process\nprepare_process()\n{code}"
    assert subprocess.run(["bash", "-c", closed, script], cwd=ROOT, check=False, timeout=60).returncode == 0
    assert (tmp_path / "file").read_text() == "True\n"


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_any_text_can_be_printed_in_any_locale(variables: dict[str, str]) -> None:
    done = in_process('print("\\xb1 \\udcff \\u2192")', capture_output=True, env=os.environ | variables)
    assert (done.returncode, done.stdout) == (0, "\\xb1 \\udcff \\u2192\n")
