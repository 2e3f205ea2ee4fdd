"""Small sweeps on the real command line, for tests and proofs: most run in a process of their own, as a user's would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import cli

TINY = """\
name: tiny
dataset: {{name: digits, limit: 300}}
model: convnet
search:
  warmup_epochs: [0, 1, 2]
  prune_iterations: [1, 5]
  seed: [0]
sparsity: 0.9
training: {{epochs: {epochs}, batch_size: 50, lr: 0.1}}
precision: fp32
resources: {{device: cpu, cpus_per_trial: 1}}
checkpoint_seconds: {checkpoint_seconds}
"""


def tiny_sweep(folder: Path, epochs: int = 2, checkpoint_seconds: float = 0) -> Path:
    """A sweep file of six trials and a dense baseline on 300 digits."""
    file = folder / "tiny.yaml"
    file.write_text(TINY.format(epochs=epochs, checkpoint_seconds=checkpoint_seconds))
    return file


@dataclass(frozen=True)
class Answer:
    code: int
    stdout: str
    stderr: str
    seconds: float

    def require(self, code: int | None, arguments: tuple[object, ...]) -> None:
        if code is not None and self.code != code:
            raise AssertionError(f"{arguments} ended with {self.code}:\n{self.stdout}\n{self.stderr}")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)]


def drive_sweep(
    *arguments: object, expect: int | None = 0, timeout_s: float = 300, environment: dict[str, str] | None = None
) -> Answer:
    """Runs one command to its end."""
    started_at = time.monotonic()
    everything = os.environ | (environment or {})
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout_s, check=False, env=everything)
    answer = Answer(done.returncode, done.stdout, done.stderr, time.monotonic() - started_at)
    answer.require(expect, arguments)
    return answer


def ask(*arguments: object, expect: int | None = 0) -> Answer:
    """Runs one command in this process, without the seconds in which a new one imports PyTorch."""
    started_at = time.monotonic()
    # Files, since a command may want the number of its output.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = cli.main([str(argument) for argument in arguments])
        output.seek(0)
        errors.seek(0)
        answer = Answer(code, output.read(), errors.read(), time.monotonic() - started_at)
    answer.require(expect, arguments)
    return answer


started: list[subprocess.Popen[str]] = []


def start(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Begins a command in a process group of its own; `started` keeps it for a clean-up after failed tests."""
    everything = os.environ | (environment or {})
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=everything,
        start_new_session=True,
    )
    started.append(process)
    return process


def status(name: str, storage: Path | str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    output = drive_sweep("status", name, "--storage", storage, "--json", environment=environment).stdout
    answer: dict[str, Any] = json.loads(output)
    return answer


def digests(name: str, storage: Path | str, environment: dict[str, str] | None = None) -> dict[str, str | None]:
    """Trial name -> model_sha256."""
    return {trial["name"]: trial["model_sha256"] for trial in status(name, storage, environment)["trials"]}


def curves(storage: Path) -> dict[str, set[tuple[str, int, float]]]:
    """Trial key -> metric points, without costs, which no two runs share."""
    return {file.parent.name: points_in(file.read_text()) for file in storage.glob("trials/*/metrics.jsonl")}


def points_in(lines: str) -> set[tuple[str, int, float]]:
    """The points of a metrics.jsonl, none of them twice."""
    points = [json.loads(line) for line in lines.splitlines()]
    assert len({(point["key"], point["step"]) for point in points}) == len(points), f"a point twice in {lines}"
    return {(point["key"], point["step"], point["value"]) for point in points if not point["key"].startswith("cost/")}


def descendants(pid: int) -> list[int]:
    """Process ids below a process, nearest first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    result, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(0), [])
        result += children
        queue += children
    return result


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a driver and every Ray process that it started."""
    for pid in [process.pid, *descendants(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Any, timeout_s: float = 120, every_s: float = 0.1) -> Any:
    """The first true value of `condition()`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(every_s)
    raise AssertionError(f"{condition} was not true within {timeout_s} s")
