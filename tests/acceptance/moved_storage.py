"""A finished storage that is moved, copied, read-only or another user's: its models load, and nothing is written elsewhere.

    python -m tests.acceptance.moved_storage [KIND...]      # as root, also as another user and where nothing can be written

In every place: `status`, `plan`, `report`, `doctor`, `sync`, a sweep of twice the trials where it can be written, and `ui`.
Counted: models that load and answer in the present place, of those that the sweep has; files that were made, changed or removed
outside the storage, its original and the current folder included. The first must be all of them, the second 0.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.support.cli import command, free_port

SWEEP = """\
name: moved
dataset: {name: digits, limit: 300}
model: convnet
search: {seed: [0, 1]}
warmup_epochs: 1
prune_iterations: 1
sparsity: 0.9
training: {epochs: 1, batch_size: 50, lr: 0.1}
precision: fp32
resources: {device: cpu, cpus_per_trial: 1}
"""
TRIALS, WIDER = 4, 8  # two seeds and their dense baselines; twice as many
LOAD = """
import sys, numpy, mlflow
from pathlib import Path
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/mlflow.db")
client = mlflow.MlflowClient()
experiments = [one.experiment_id for one in client.search_experiments()]
models = client.search_logged_models(experiments)
loaded = 0
for model in models:
    scores = mlflow.pyfunc.load_model(f"models:/{model.model_id}").predict(numpy.zeros((2, 1, 8, 8), numpy.float32))
    loaded += scores.shape == (2, 10) and Path(model.artifact_location).is_relative_to(sys.argv[1])
print(loaded, len(models))
"""
OTHER_USER = 65534


@dataclass
class Place:
    """One try: a storage, what belongs to its surroundings, and who works on it."""

    root: Path
    storage: Path
    user: int | None = None
    problems: list[str] = field(default_factory=list)

    def run(self, *arguments: object, expect: tuple[int, ...] = (0,), text_part: str = "") -> str:
        done = self._child(command(*arguments, "--storage", self.storage))
        text = done.stdout + done.stderr
        if done.returncode not in expect or "Traceback" in text or text_part not in text:
            self.problems.append(f"{arguments[0]} ended with {done.returncode}: {text[-600:]}")
        return text

    def models(self, expected: int) -> tuple[int, int]:
        done = self._child([sys.executable, "-c", LOAD, str(self.storage)])
        if done.returncode:
            self.problems.append(f"loading: {done.stderr[-600:]}")
            return 0, expected
        loaded, there = map(int, done.stdout.split())
        return loaded, max(expected, there)

    def ui(self) -> None:
        """The page of MLflow and one artifact of the sweep's run come from the present place."""
        port = free_port()
        arguments = self._as_user(command("ui", "moved", "--storage", self.storage, "--port", port))
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **self._options()) as child:
            try:
                assert child.stdout is not None
                if self._wait(f"http://127.0.0.1:{port}/health", child):
                    links = "".join(child.stdout.readline() for _ in range(3))
                    run = re.search(r"runs/([0-9a-f]{32})", links)
                    artifact = f"get-artifact?path=report.html&run_uuid={run[1] if run else ''}"
                    if b"<html" not in self._get(f"http://127.0.0.1:{port}/{artifact}"):
                        self.problems.append(f"ui: no report; it printed {links!r}")
            finally:
                child.terminate()
                child.wait(30)

    def _wait(self, address: str, child: subprocess.Popen[str]) -> bytes:
        for _ in range(240):
            if child.poll() is not None:
                self.problems.append(f"ui ended with {child.returncode}: {child.stderr.read()[-600:] if child.stderr else ''}")
                return b""
            if response := self._get(address):
                return response
            time.sleep(0.25)
        self.problems.append("ui: no answer within a minute")
        return b""

    def _get(self, address: str) -> bytes:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                content: bytes = answer.read()
                return content
        except OSError:
            return b""

    def _child(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._as_user(arguments), capture_output=True, text=True, check=False, **self._options())

    def _options(self) -> dict[str, Any]:
        environment = os.environ | {
            "HOME": str(self.root / "home"),
            "DRIVE_SWEEP_CACHE": str(self.root / "cache"),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {"cwd": self.root / "here", "env": environment}

    def _as_user(self, arguments: list[str]) -> list[str]:
        """The command as this user, who may read all, since Python may lie in another home, and writes as others."""
        if self.user is None:
            return arguments
        identity = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        return ["setpriv", *identity, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", *arguments]


def finished_storage(root: Path) -> Path:
    """The finished sweep's storage, in the place where it was made."""
    for name in ("home", "here", "cache"):
        (root / name).mkdir()
    (root / "moved.yaml").write_text(SWEEP)
    place = Place(root, root / "first" / "runs")
    place.run("run", root / "moved.yaml", "--quiet")
    assert not place.problems, place.problems
    return place.storage


def renamed(root: Path, storage: Path) -> Place:
    there = root / "second" / "a name with space"
    there.parent.mkdir()
    storage.rename(there)
    return Place(root, there)


def copied(root: Path, storage: Path) -> Place:
    shutil.copytree(storage, root / "copy")
    return Place(root, root / "copy")


def copied_over(root: Path, storage: Path) -> Place:
    """A copy, and another storage is in the place of the original."""
    place = copied(root, storage)
    shutil.rmtree(storage)
    Place(root, storage).run("run", root / "moved.yaml", "--quiet")
    return place


def another_users(root: Path, storage: Path) -> Place:
    """Moved, and given to another user, who cannot write anywhere else."""
    place = renamed(root, storage)
    place.user = OTHER_USER
    for folder in (place.storage, root / "cache", root / "home"):
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, OTHER_USER, OTHER_USER)
    return place


def read_only(root: Path, storage: Path) -> Place:
    """Moved, and looked at by a user who cannot write there."""
    place = renamed(root, storage)
    place.user = OTHER_USER
    for path in (root / "cache", root / "home"):
        os.chown(path, OTHER_USER, OTHER_USER)
    return place


def listing(root: Path, without: Path) -> dict[str, tuple[int, int]]:
    """Time and size of every file below, caches aside."""
    skipped = (without, root / "cache")
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in root.rglob("*")
        if path.is_file() and not any(path.is_relative_to(one) for one in skipped)
    }


def tried(kind: Callable[[Path, Path], Place]) -> tuple[int, int, int, list[str]]:
    """Models that load, models that there are, files outside that differ, and problems."""
    with tempfile.TemporaryDirectory(prefix="drive-sweep-proof-") as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        place = kind(root, finished_storage(root))
        before = listing(root, place.storage)
        inside = listing(place.storage, root / "none")
        place.run("status", "moved")
        place.run("report", "moved")
        place.run("plan", root / "moved.yaml", text_part=f"{TRIALS}")
        writes = kind is not read_only
        if writes:
            place.run("doctor", root / "moved.yaml", expect=(0, 1, 3))
            place.run("sync", "moved")
            loaded, there = place.models(TRIALS)
            place.run("run", root / "moved.yaml", "--quiet", "--set", "search.seed=[0, 1, 2, 3]")
            more, all_of_them = place.models(WIDER)
            loaded, there = loaded + more, there + all_of_them
        else:
            place.run("run", root / "moved.yaml", "--set", "search.seed=[0, 1, 2, 3]", expect=(2, 3))
            loaded, there = 0, 0  # MLflow has no read-only store; the UI shows a corrected copy
            if listing(place.storage, root / "none") != inside:
                place.problems.append("files in the read-only storage changed")
        place.ui()
        after = listing(root, place.storage)
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        return loaded, there, len(changed), place.problems + sorted(changed)


def main(names: list[str]) -> int:
    kinds = [renamed, copied, copied_over, *([another_users, read_only] if os.geteuid() == 0 else [])]
    kinds = [kind for kind in kinds if not names or kind.__name__ in names]
    bad = 0
    for kind in kinds:
        began = time.monotonic()
        loaded, there, outside, problems = tried(kind)
        print(
            f"{kind.__name__.replace('_', ' '):14s} {loaded} of {there} models load, {outside} files outside changed, "
            f"{len(problems)} problems, {time.monotonic() - began:.0f} s",
            *(f"\n    {problem}" for problem in problems),
            flush=True,
        )
        bad += there - loaded + outside + len(problems)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
