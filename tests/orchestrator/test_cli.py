"""The command line: exit codes, where answers go, what is imported, what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.storage.factory import open_storage
from tests.support.cli import ask, drive_sweep, tiny_sweep
from tests.support.trials import write_result

HEAVY = ("torch", "ray", "mlflow", "pyarrow", "sklearn", "matplotlib", "pandas")


def modules_after(*arguments: object) -> set[str]:
    """Heavy modules that one command has imported."""
    script = (
        "import sys\nfrom orchestrator.cli import main\n"
        f"code = main({list(map(str, arguments))!r})\n"
        f"print(code, *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    code, *loaded = done.stderr.strip().splitlines()[-1].split()
    assert code == "0", done.stderr
    return set(loaded)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The storage of a sweep that finished, as its driver left it."""
    storage = open_storage(str(tmp_path / "runs"), create=True)
    folder = SweepFolder(storage, "tiny")
    state = SweepState(sweep="tiny")
    config = {"sparsity": 0.9, "method": "drive"}
    for name, status in (("a", "finished"), ("b", "failed")):
        state.trials[name] = TrialStatus(key=name, name=f"w00-{name}", state=status, config=config, error="boom")
        state.trials[name].metrics = {"val/accuracy": 0.5, "test/accuracy": 0.25}
    folder.write_state(state)
    storage.write_json(folder.file("trials.json"), {"trials": []})
    return tmp_path / "runs"


def test_plan_status_and_help_import_nothing_heavy(tmp_path: Path, finished: Path) -> None:
    drive_sweep("plan", "digits", "--storage", tmp_path / "none")  # the first plan of a network looks at its layers
    assert modules_after("plan", "digits", "--storage", tmp_path / "none") == set()
    assert modules_after("status", "tiny", "--storage", finished) == set()
    assert modules_after("logs", "tiny", "--storage", finished) == set()
    assert "search" in drive_sweep("--help").stdout.lower()


def test_json_answers_are_alone_on_stdout(tmp_path: Path, finished: Path) -> None:
    plan = json.loads(drive_sweep("plan", "digits", "--json", "--storage", tmp_path / "none").stdout)
    assert {"trials", "reused", "warmups", "epochs"} <= set(plan)
    assert set(plan["warmups"][0]) == {"key", "epochs", "trials"}
    answer = json.loads(drive_sweep("status", "tiny", "--json", "--storage", finished).stdout)
    wanted = {"sweep", "total", "finished", "failed", "stopped", "running", "waiting", "tracking_pending", "warmups", "trials"}
    assert wanted <= set(answer)
    trial_fields = {"key", "name", "state", "config", "metrics", "mlflow_run_id", "model_sha256", "error"}
    assert trial_fields <= set(answer["trials"][0])
    assert json.loads(drive_sweep("schema").stdout)["$schema"].startswith("https://json-schema.org/")


def test_invalid_sweep_file_exits_with_2_and_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("name: x\ndataset: {name: digits}\nmodel: resnet21\nsparsity: 95\n")
    for command in ("plan", "run", "trial"):
        answer = drive_sweep(command, file, "--storage", tmp_path / "runs", expect=2)
        assert answer.stdout == ""
        assert f"{file}:3: model must be one of" in answer.stderr
        assert f"{file}:4: sparsity must be in [0, 1), got 95; a percentage? write 0.95" in answer.stderr
        assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_missing_data_end_run_with_2_and_write_nothing(tmp_path: Path) -> None:
    file = tiny_sweep(tmp_path)
    missing = f"dataset={{name: image_folder, root: {tmp_path}/nowhere, image_size: 8}}"
    answer = drive_sweep("run", file, "--set", missing, "--storage", tmp_path / "runs", expect=2)
    assert f"no folder '{tmp_path}/nowhere'" in answer.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_an_unknown_sweep_ends_with_2(tmp_path: Path) -> None:
    for command in ("status", "logs", "stop", "resume", "report", "compare", "sync", "ui"):
        answer = drive_sweep(command, "nothing", "--storage", tmp_path / "runs", expect=2)
        assert "no sweep 'nothing'" in answer.stderr
    assert not (tmp_path / "runs").exists()


def test_a_storage_that_cannot_be_written_ends_with_3(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = drive_sweep("trial", tiny_sweep(tmp_path), "--index", 0, "--storage", tmp_path / "file" / "runs", expect=3)
    assert "cannot be written" in answer.stderr


def test_init_writes_a_file_that_plan_takes_and_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    drive_sweep("init", file)
    assert json.loads(drive_sweep("plan", file, "--json", "--storage", tmp_path / "runs").stdout)["trials"] > 0
    before = file.read_text()
    assert "exists" in drive_sweep("init", file, expect=2).stderr
    assert file.read_text() == before


def test_init_begins_with_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    drive_sweep("init", file, "--from", "open-lth/cifar10-resnet20")
    assert "name: open-lth-cifar10-resnet20\n" in file.read_text()
    answer = drive_sweep("init", tmp_path / "other.yaml", "--from", "open-lth/cifar10-resnet21", expect=2)
    assert "did you mean 'open-lth/cifar10-resnet20'?" in answer.stderr
    assert not (tmp_path / "other.yaml").exists()


def test_a_file_with_several_trials_needs_an_index(tmp_path: Path) -> None:
    answer = drive_sweep("trial", tiny_sweep(tmp_path), "--storage", tmp_path / "runs", expect=2)
    assert "--index 0: w00-i001-s0.9-r0" in answer.stderr
    assert (
        "--index must be in 0..6, got 99"
        in drive_sweep("trial", tiny_sweep(tmp_path), "--index", 99, "--storage", tmp_path / "runs", expect=2).stderr
    )


def test_trial_in_the_foreground_leaves_a_reproducible_record(tmp_path: Path) -> None:
    file, storage = tiny_sweep(tmp_path), tmp_path / "runs"
    first = json.loads(drive_sweep("trial", file, "--index", 1, "--storage", storage, "--json").stdout)
    assert first["kept_weights"] == 1525
    answer = ask("trial", file, "--index", 1, "--storage", storage)
    assert "the record is reproduced" in answer.stderr
    assert first["model_sha256"] in answer.stdout
    assert json.loads(drive_sweep("plan", file, "--json", "--storage", storage).stdout)["reused"] == 1


def test_a_failing_trial_ends_with_1_and_its_reason(tmp_path: Path) -> None:
    answer = ask(
        "trial", tiny_sweep(tmp_path), "--index", 0, "--set", "training.lr=1e30", "--storage", tmp_path / "runs", expect=1
    )
    assert "failed (nonfinite): the training loss became" in answer.stderr
    (record,) = (tmp_path / "runs").glob("trials/*/error.json")
    assert json.loads(record.read_text())["kind"] == "nonfinite"
    assert "Traceback" not in answer.stderr


def test_results_are_kept_while_another_driver_runs_the_sweep(tmp_path: Path) -> None:
    file, storage = tiny_sweep(tmp_path), open_storage(str(tmp_path / "runs"), create=True)
    for trial in make_plan(load_spec(str(file)), storage).trials:
        write_result(storage, trial.key, {"revision": "earlier"})
    before = {path: path.read_bytes() for path in (tmp_path / "runs" / "trials").rglob("*") if path.is_file()}
    assert len(before) == 7
    with SweepFolder(storage, "tiny").driver_lease():
        answer = drive_sweep("run", file, "--recompute", "--storage", storage.root, expect=3)
        storage.write_json("sweeps/tiny/trials.json", {"trials": storage.names("trials")})
        shared = drive_sweep("run", file, "--name", "other", "--recompute", "--storage", storage.root, expect=3)
    assert "sweep 'tiny' is being run by another process" in answer.stderr
    assert "is one of sweep 'tiny', which is being run by another process" in shared.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "runs" / "trials").rglob("*") if path.is_file()} == before


def test_stop_on_a_sweep_that_does_not_run_says_so(finished: Path) -> None:
    assert "is not running" in drive_sweep("stop", "tiny", "--storage", finished).stderr


def test_logs_of_a_failed_trial_show_its_traceback(finished: Path) -> None:
    record = {"kind": "code", "message": "boom", "traceback": "Traceback ...\nboom\n", "attempt": 2, "time": 10**12}
    open_storage(str(finished)).write_json("trials/b/error.json", record)
    out = drive_sweep("logs", "tiny", "--trial", "b", "--storage", finished).stdout
    assert "attempt 2 failed (code):\nTraceback" in out
