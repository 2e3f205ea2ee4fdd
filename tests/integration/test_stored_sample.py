"""A storage that an earlier revision wrote: it is read, finished and widened, and nothing in it is computed again.

tests/data/sample-storage.tar.zst was made at revision e2e3f6f: runs/, without its MLflow database; sweep.yaml, a sweep of
two methods; expected.json, the models which that revision computed for the wider grid. `drive-sweep run` had finished
prune_iterations [1] and was interrupted in the last trial of [1, 2].
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests import ROOT
from tests.support.cli import ask, digests, drive_sweep, status
from trainables.records.metrics import points_from_lines

ARCHIVE = ROOT / "tests/data/sample-storage.tar.zst"
UNFINISHED = "snip-w01-i002-s0.9-r0-images_per_class5-batch_normrunning"
FINISHED = {
    "drive-w01-i001-s0.9-r0",
    "drive-w01-i002-s0.9-r0",
    "snip-w01-i001-s0.9-r0-images_per_class5-batch_normrunning",
    "dense-r0",
}
NEW = {"drive-w01-i003-s0.9-r0", "snip-w01-i003-s0.9-r0-images_per_class5-batch_normrunning"}


@dataclass(frozen=True)
class Sample:
    folder: Path

    @property
    def storage(self) -> Path:
        return self.folder / "runs"

    @property
    def file(self) -> Path:
        return self.folder / "sweep.yaml"

    @property
    def expected(self) -> dict[str, str]:
        """Trial name -> model_sha256 of the wider grid."""
        digests: dict[str, str] = json.loads((self.folder / "expected.json").read_text())
        return digests

    def answer(self, command: str, *arguments: object) -> Any:
        return json.loads(drive_sweep(command, *arguments, "--storage", self.storage, "--json").stdout)

    def files(self) -> dict[str, bytes]:
        """The files of finished trials and of warm-ups."""
        folders = [file.parent for file in self.storage.glob("trials/*/result.json")] + [self.storage / "warmups"]
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
        return {file.relative_to(self.storage).as_posix(): file.read_bytes() for file in files}

    def points(self, key: str) -> list[Any]:
        """Of a trial's metrics."""
        return points_from_lines((self.storage / "trials" / key / "metrics.jsonl").read_bytes())

    def fingerprints(self, names: set[str]) -> list[Any]:
        """Of the machines that computed these trials."""
        keys = [trial["key"] for trial in status("sample", self.storage)["trials"] if trial["name"] in names]
        results = [json.loads((self.storage / "trials" / key / "result.json").read_text()) for key in keys]
        return [fingerprint for result in results for fingerprint in result["fingerprints"]]

    def is_as_of(self, stored: Sample) -> bool:
        """Whether the new trials were computed on a machine like that of a stored sample."""
        there = stored.fingerprints(FINISHED)
        return all(each in there for each in self.fingerprints(NEW))


def unpack(folder: Path) -> Sample:
    with tarfile.open(fileobj=io.BytesIO(zstandard.decompress(ARCHIVE.read_bytes()))) as archive:
        archive.extractall(folder, filter="data")
    return Sample(folder)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """As stored; tests only read it."""
    return unpack(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def widened(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Synchronised with MLflow, and run with one more value, which also finishes the trial that was interrupted."""
    sample = unpack(tmp_path_factory.mktemp("widened"))
    drive_sweep("sync", "sample", "--storage", sample.storage)
    sample.file.write_text(sample.file.read_text().replace("prune_iterations: [1, 2]", "prune_iterations: [1, 2, 3]"))
    drive_sweep("run", sample.file, "--storage", sample.storage, "--set", "resources.max_concurrent=1", "--quiet")
    drive_sweep("sync", "sample", "--storage", sample.storage)
    return sample


def test_status_and_report_read_a_stored_sweep(sample: Sample) -> None:
    states = {trial["name"]: trial["state"] for trial in status("sample", sample.storage)["trials"]}
    assert states == dict.fromkeys(FINISHED, "finished") | {UNFINISHED: "stopped"}
    assert digests("sample", sample.storage) == {name: sample.expected[name] for name in FINISHED} | {UNFINISHED: None}
    report = sample.answer("report", "sample")
    assert {(each["method"], each["prune_iterations"]) for each in report["settings"]} == {
        ("dense", 0),
        ("drive", 1),
        ("drive", 2),
        ("snip", 1),
    }


def test_plan_reuses_the_finished_trials_of_a_stored_sweep(sample: Sample) -> None:
    plan = sample.answer("plan", sample.file)
    assert {trial["name"]: trial["done"] for trial in plan["keys"]} == dict.fromkeys(FINISHED, True) | {UNFINISHED: False}
    assert (plan["reused"], plan["added"], plan["removed"], plan["damaged"]) == (4, 0, 0, [])


def test_interrupted_trial_of_a_stored_sweep_goes_on(sample: Sample, tmp_path: Path) -> None:
    continued = unpack(tmp_path)
    (key,) = [trial["key"] for trial in status("sample", sample.storage)["trials"] if trial["name"] == UNFINISHED]
    earlier = sample.points(key)
    ask("trial", key, "--storage", continued.storage)
    points = continued.points(key)
    assert points[: len(earlier)] == earlier
    assert len(points) > len(earlier) > 0
    before, after = sample.files(), continued.files()
    assert {name: after.get(name) for name in before} == before


@pytest.mark.long
def test_stored_sweep_is_widened_without_recomputation(sample: Sample, widened: Sample) -> None:
    trials = {trial["name"]: trial for trial in status("sample", widened.storage)["trials"]}
    assert {name: trial["state"] for name, trial in trials.items()} == dict.fromkeys(FINISHED | {UNFINISHED} | NEW, "finished")
    assert {name: trials[name]["model_sha256"] for name in FINISHED} == {name: sample.expected[name] for name in FINISHED}
    before, after = sample.files(), widened.files()
    assert {name: after.get(name) for name in before} == before
    added = {name for name in after.keys() - before.keys() if name.startswith("trials/")}
    assert {name.split("/")[1] for name in added} == {trials[name]["key"] for name in NEW | {UNFINISHED}}
    if widened.is_as_of(sample):  # another machine has warm-ups of its own
        assert after.keys() - before.keys() == added
    points, earlier = (one.points(trials[UNFINISHED]["key"]) for one in (widened, sample))
    assert points[: len(earlier)] == earlier  # it went on


@pytest.mark.long
def test_mlflow_shows_each_run_of_a_stored_sweep_once(widened: Sample) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{widened.storage}/mlflow.db")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert {run.info.status for run in runs} == {"FINISHED"}
    roles = [run.data.tags["drive.role"] for run in runs]
    assert {role: roles.count(role) for role in roles} == {"sweep": 1, "warmup": 1, "trial": 7}
    trials = {run.data.tags["drive.trial_key"] for run in runs if run.data.tags["drive.role"] == "trial"}
    assert trials == {trial["key"] for trial in status("sample", widened.storage)["trials"]}


@pytest.mark.long
def test_trials_of_a_stored_sweep_are_as_of_its_revision(sample: Sample, widened: Sample) -> None:
    if not widened.is_as_of(sample):
        there, here = sample.fingerprints(FINISHED), widened.fingerprints(NEW)
        pytest.skip(f"the last bits of a model depend on the machine: computed on {there[0]}, here {here[0]}")
    assert digests("sample", widened.storage) == sample.expected
