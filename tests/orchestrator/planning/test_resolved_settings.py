"""What a sweep decides by itself: what becomes of a choice, and how it is kept for later runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from orchestrator.planning.plan import Plan, make_plan
from orchestrator.planning.resolved_settings import (
    RESOLVED,
    ResolvedSettings,
    configured_gpu_share,
    merge_settings,
    read_resolved,
    write_resolved,
)
from orchestrator.preflight import networks
from orchestrator.spec.loader import load_spec
from orchestrator.spec.schema import Resources
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from tests.support.cli import tiny_sweep
from trainables.runtime.device import Runtime, resolve_precision

ANSWERS: dict[str, Any] = {
    "device": "cuda",
    "precision": "bf16",
    "cpus_per_trial": 2.0,
    "gpus_per_trial": 0.125,
    "compile": False,
    "compile_problem": "no C++ compiler",
}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(open_storage(str(tmp_path / "runs"), create=True), "tiny")


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1.0, 1), (2.0, 2), (2.7, 2), (16.0, 16)])
def test_trial_has_a_thread_for_every_whole_cpu(cpus: float, threads: int) -> None:
    assert ResolvedSettings(device="cpu", cpus_per_trial=cpus).runtime(Resources()).threads == threads


@pytest.mark.parametrize(
    ("written", "device", "cpus", "gpus", "threads"),
    [
        ({"device": "cpu", "workers_per_trial": 2}, "cpu", 1.0, 0.0, 1),
        ({"device": "cpu", "workers_per_trial": 3, "cpus_per_trial": 5.0}, "cpu", 1.6666, 0.0, 1),  # of which three fit into 5
        ({"gpus_per_trial": 4.0, "cpus_per_trial": 18.0}, "cuda", 4.5, 1.0, 4),
    ],
)
def test_workers_divide_the_cpus_and_gpus_of_a_trial(
    written: dict[str, Any], device: str, cpus: float, gpus: float, threads: int
) -> None:
    resources = Resources(**written)
    settings = merge_settings(resources, {"device": device})
    assert (settings.cpus_per_worker, settings.gpus_per_worker) == (cpus, gpus)
    runtime = settings.runtime(resources)
    assert (runtime.workers, runtime.threads, runtime.sync_batch_norm) == (settings.workers, threads, True)


@pytest.mark.parametrize(("workers", "synchronised"), [(1, True), (2, False)])
def test_one_worker_has_nothing_to_synchronise(workers: int, synchronised: bool) -> None:
    """So the key changes no fingerprint of trials of one worker."""
    resources = Resources(device="cpu", workers_per_trial=workers, sync_batch_norm=False)
    assert merge_settings(resources, {"device": "cpu"}).runtime(resources).sync_batch_norm is synchronised


@pytest.mark.parametrize(
    ("device", "written", "deterministic"),
    [
        ("cpu", None, True),
        ("cuda", None, False),
        ("cpu", False, False),
        ("cuda", True, True),
    ],
)
def test_runtime_is_deterministic_on_a_cpu_or_on_request(device: str, written: bool | None, deterministic: bool) -> None:
    runtime = ResolvedSettings(device=device).runtime(Resources(deterministic=written))
    assert (runtime.device, runtime.deterministic) == (device, deterministic)


@pytest.mark.parametrize(("precision", "expected"), [(None, "fp32"), ("fp32", "fp32"), ("bf16", "bf16")])
def test_precision_that_no_trial_needed_to_know_is_fp32(precision: Literal["fp32", "bf16"] | None, expected: str) -> None:
    assert ResolvedSettings(device="cpu", precision=precision).runtime(Resources()).precision == expected


def test_runtime_compiles_only_where_compilation_works() -> None:
    """A request alone is not enough."""
    asked = Resources(compile=True)
    assert ResolvedSettings(device="cpu", compile=True).runtime(asked).compile
    assert not ResolvedSettings(device="cpu", compile=False).runtime(asked).compile


def test_answers_are_read_as_they_were_written(folder: SweepFolder) -> None:
    assert read_resolved(folder) == {}
    write_resolved(folder, ANSWERS)
    assert read_resolved(folder) == ANSWERS
    assert folder.storage.exists("sweeps/tiny/resolved.json")


def test_settings_of_an_older_version_are_read_where_known(folder: SweepFolder) -> None:
    folder.storage.write_json(folder.file(RESOLVED), {"device": "cpu", "auto": "bf16"})
    assert read_resolved(folder) == {"device": "cpu"}
    assert merge_settings(Resources(), {"device": "cpu"}) == ResolvedSettings(device="cpu", precision=None, cpus_per_trial=1.0)


def test_merge_settings_prefers_the_sweep_file_to_the_answers() -> None:
    automatic = Resources(cpus_per_trial="auto", gpus_per_trial="auto", compile=True)
    expected = ResolvedSettings(device="cuda", precision="bf16", cpus_per_trial=2.0, gpus_per_trial=0.125)
    assert merge_settings(automatic, ANSWERS) == expected
    assert merge_settings(automatic, ANSWERS | {"compile": True}) == replace(expected, compile=True)
    written = Resources(cpus_per_trial=3.0, gpus_per_trial=0.5)
    from_file = ResolvedSettings(device="cuda", precision="bf16", cpus_per_trial=3.0, gpus_per_trial=0.5)
    assert merge_settings(written, ANSWERS | {"compile": True}) == from_file
    assert merge_settings(Resources(), ANSWERS).gpus_per_trial == 1.0


@pytest.mark.parametrize(
    ("written", "device", "share"),
    [
        (None, "cuda", 1.0),
        (0.25, "cuda", 0.25),
        (0.0, "cuda", 0.0),
        (1.0, "cuda", 1.0),
        (4.0, "cuda", 4.0),
        ("auto", "cuda", None),
        ("auto", "cpu", 0.0),
        (None, "cpu", 0.0),
        (0.5, "cpu", 0.0),
    ],
)
def test_gpu_share_is_whole_by_default_and_none_on_a_cpu(
    written: float | Literal["auto"] | None, device: str, share: float | None
) -> None:
    assert configured_gpu_share(written, device) == share


def tiny_plan(folder: SweepFolder, tmp_path: Path, **resources: Any) -> Plan:
    options = [f"resources.{name}={value}" for name, value in resources.items()]
    return make_plan(load_spec(str(tiny_sweep(tmp_path)), options), folder.storage)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])  # one of them is not what this machine would choose
def test_a_trial_in_the_foreground_computes_as_its_sweep_chose(
    precision: Literal["fp32", "bf16"], folder: SweepFolder, tmp_path: Path
) -> None:
    write_resolved(folder, {"device": "cpu", "precision": precision, "cpus_per_trial": 3.0, "compile": True})
    automatic = tiny_plan(folder, tmp_path, device="auto", cpus_per_trial="auto", compile="true")
    assert networks.local_runtime(automatic, folder) == Runtime(threads=3, precision=precision, compile=True)
    written = tiny_plan(folder, tmp_path, device="cpu", cpus_per_trial=2)
    assert networks.local_runtime(written, folder) == Runtime(threads=2, precision=precision, compile=False)


def test_trial_before_its_sweep_has_the_process_to_itself(
    folder: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.preflight.networks.processors", lambda: 6)
    automatic = tiny_plan(folder, tmp_path, device="cpu", cpus_per_trial="auto", compile="true")
    expected = Runtime(threads=6, precision=resolve_precision("auto", "cpu"), compile=False)
    assert networks.local_runtime(automatic, folder) == expected
    assert read_resolved(folder) == {}
