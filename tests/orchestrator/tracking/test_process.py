"""The tracking thread in a process of its own: what it is sent arrives, and it never outlives its driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from orchestrator.process.import_paths import ROOT, WorkerFolders
from orchestrator.tracking.process import TrackingProcess
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.sweep_run import SweepRunSpec
from orchestrator.tracking.sweep_summary import SweepSummary
from tests.support.mlflow_stores import Content, new_target
from tests.support.trials import SWEEP, new_storage, run, tiny_config
from trainables.config.keys import trial_key
from trainables.data.digits import DIGITS_DIGEST

KEY = trial_key(tiny_config(), DIGITS_DIGEST)
TRIAL = RunSpec(key=KEY, name="w02-i002", role="trial", params={"seed": "0"}, tags={})
OTHER = RunSpec(key="0" * 16, name="w02-i009", role="trial", params={"seed": "0"}, tags={})


SHADOWS = ("mlflow", "numpy", "random", "types", "logging", "sqlite3", "torch", "ray", "trainables", "orchestrator")


@pytest.fixture(autouse=True)
def files_named_like_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the current folder, where none of them may be taken for the module."""
    folder = tmp_path / "current"
    folder.mkdir()
    for name in SHADOWS:
        (folder / f"{name}.py").write_text("raise SystemExit('taken from the current folder')")
    monkeypatch.chdir(folder)


@pytest.fixture
def opening(tmp_path: Path) -> SweepRunSpec:
    return SweepRunSpec(
        target=new_target(tmp_path / "store"),
        storage=new_storage(tmp_path / "runs"),
        sweep=SWEEP,
        log_models=True,
        trial_keys=(KEY,),
        description="tiny",
        params={"model": "convnet"},
        tags={},
    )


@pytest.fixture
def tracking(opening: SweepRunSpec) -> Iterator[TrackingProcess]:
    process = TrackingProcess(opening)
    process.start()
    yield process
    process.close()


def eventually(true: Callable[[], bool], within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_everything_sent_is_in_mlflow_after_a_flush(opening: SweepRunSpec, tracking: TrackingProcess) -> None:
    started_ms = int(time.time() * 1000)
    tracking.reconcile([(TRIAL, "waiting"), (OTHER, "waiting")])
    tracking.start_item(TRIAL)
    tracking.start_item(OTHER)
    result = run(tiny_config(), opening.storage)
    tracking.finish(TRIAL)
    tracking.fail(OTHER, "the loss became nan")
    tracking.close_sweep("FAILED", SweepSummary(artifacts={"report.html": b"<p>"}))
    assert tracking.pending
    assert tracking.flush(60), tracking.last_error
    assert (tracking.pending, tracking.last_error) == (0, None)
    assert tracking.cpu_seconds > 0

    content = Content(opening.target)
    runs = {each.info.run_name: each for each in content.runs}
    assert {name: each.info.status for name, each in runs.items()} == {
        "w02-i002": "FINISHED",
        "w02-i009": "FAILED",
        SWEEP: "FAILED",
    }
    assert runs["w02-i002"].data.metrics == result["metrics"]
    assert started_ms <= runs["w02-i009"].info.start_time <= started_ms + 2000  # when it began, not when MLflow was reached
    assert len(content.models) == 1
    assert tracking.run_ids == {KEY: runs["w02-i002"].info.run_id, OTHER.key: runs["w02-i009"].info.run_id}
    assert tracking.parent_run_id == runs[SWEEP].info.run_id


def test_unusable_store_is_reported_and_flush_gives_up(opening: SweepRunSpec, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database" * 1000)
    target = type(opening.target)(uri=f"sqlite:///{broken}", experiment="x", artifact_root=None)
    process = TrackingProcess(SweepRunSpec(**{**vars(opening), "target": target}))
    process.start()
    process.start_item(TRIAL)
    assert not process.flush(60)
    assert process.pending
    assert "must be a SQLite database of MLflow, got a damaged one" in str(process.last_error)
    process.close()


def test_signals_for_the_driver_do_not_end_it_and_closing_does(tracking: TrackingProcess) -> None:
    child = tracking._child
    assert child is not None
    tracking.start_item(OTHER)
    assert eventually(lambda: tracking.experiment_id != "")
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child.pid, number)
    tracking.stop(OTHER)
    assert tracking.flush(60), tracking.last_error
    tracking.close()
    assert child.poll() == 0


def test_killed_process_is_reported_and_nobody_waits_for_it(tracking: TrackingProcess) -> None:
    child = tracking._child
    assert child is not None
    child.kill()
    tracking.start_item(TRIAL)
    started_at = time.monotonic()
    assert not tracking.flush(60)
    assert time.monotonic() - started_at < 20
    assert tracking.pending
    assert eventually(lambda: "has ended" in str(tracking.last_error))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when it reads the closed pipe")
def test_it_ends_with_a_driver_that_is_killed(opening: SweepRunSpec, tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from orchestrator.tracking.sweep_run import SweepRunSpec
from orchestrator.tracking.client import TrackingTarget
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.process import TrackingProcess
process = TrackingProcess({opening!r})
process.start()
print(process._child.pid, flush=True)
time.sleep(60)
"""
    driver = subprocess.Popen([sys.executable, "-P", "-c", script], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    child = int(driver.stdout.readline())
    assert alive(child)
    driver.kill()
    driver.wait()
    assert eventually(lambda: not alive(child), within_s=5.0)


def test_workers_get_no_folder_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = WorkerFolders()
    folders.extend([str(Path.cwd())])
    assert str(Path.cwd()) not in folders
    installed = PathFinder.find_spec("trainables", [str(ROOT)])
    for spec, wanted in ((installed, []), (None, [str(ROOT)])):
        monkeypatch.setattr(PathFinder, "find_spec", lambda name, path=None, target=None, spec=spec: spec)
        monkeypatch.setattr("sys.meta_path", [])
        assert WorkerFolders() == wanted


def test_module_takes_nothing_from_the_current_folder() -> None:
    Path("trainables.py").unlink()
    Path("orchestrator.py").unlink()  # of these two the current folder's would be the one that was asked for
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "plan", "digits"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "50 trials" in done.stdout
