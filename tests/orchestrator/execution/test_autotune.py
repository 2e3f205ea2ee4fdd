"""Automatic choices: what is asked of workers and what is not, which autotune wins, and one real measurement on Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.errors import SetupError
from orchestrator.execution import autotune
from orchestrator.execution.autotune import ProbeLostError, resolve_settings, smallest_near_best
from orchestrator.execution.driver import Driver
from orchestrator.planning.plan import make_plan
from orchestrator.planning.resolved_settings import ResolvedSettings, write_resolved
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from tests.support.cli import drive_sweep, tiny_sweep
from trainables.data.staging import StagedDataset
from trainables.preflight.network_case import NetworkCase, NetworkReport
from trainables.runtime.device import resolve_precision

LARGE = {"NodeID": "large", "Alive": True, "NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 8.0, "GPU": 1.0}}
SMALL = {"NodeID": "small", "Alive": True, "NodeManagerAddress": "10.0.0.3", "Resources": {"CPU": 2.0}}
NO_COMPILER = "no C++ compiler"


@pytest.mark.parametrize(
    ("totals", "chosen"),
    [
        ({1: 100.0}, 1),
        ({4: 0.0}, 4),
        ({1: 100.0, 2: 100.0, 4: 100.0}, 1),
        ({1: 95.0, 2: 100.0}, 1),  # near the best is as good
        ({1: 94.9, 2: 100.0}, 2),
        ({1: 50.0, 2: 96.0, 4: 100.0}, 2),
        ({1: 100.0, 2: 190.0, 4: 370.0, 8: 380.0}, 4),
        ({4: 370.0, 1: 100.0, 8: 380.0, 2: 190.0}, 4),  # in any order
        ({1: 100.0, 2: 60.0, 4: 99.0}, 1),
        ({1: 10.0, 2: 100.0, 4: 30.0}, 2),
    ],
)
def test_smallest_candidate_near_the_best_total_wins(totals: dict[int, float], chosen: int) -> None:
    assert smallest_near_best(totals) == chosen


# Without Ray: what is decided by itself


def examining(monkeypatch: pytest.MonkeyPatch, questions: list[str]) -> None:
    """Stands for the worker that is asked about its hardware and the networks: notes what it is asked for, and answers."""

    def examined(
        driver: Driver,
        plan: Any,
        data: Any,
        cached: dict[str, Any],
        asks_precision: bool,
        wants_compile: bool,
        share: float | None,
        cases: list[NetworkCase],
    ) -> tuple[dict[str, Any], list[NetworkReport]]:
        asks = {"precision": asks_precision, "compile": wants_compile, "networks": bool(cases)}
        questions.extend(question for question, is_asked in asks.items() if is_asked)
        answers = {"precision": "bf16"} if asks_precision or wants_compile else {}
        compilation = {"compile": False, "compile_problem": NO_COMPILER} if wants_compile else {}
        fine = [NetworkReport(case=case.id, model=case.config.model, findings=(), adjusted={}, seconds=0.0) for case in cases]
        return answers | compilation, fine

    monkeypatch.setattr(autotune, "_ask_worker", examined)


@pytest.fixture(autouse=True)
def nothing_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers of other tests' sweeps."""
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for the workers of a cluster with a GPU: notes what they are asked for, and answers."""
    questions: list[str] = []

    def answering(name: str, answer: float) -> None:
        def reply(*arguments: Any) -> float:
            questions.append(name)
            return answer

        monkeypatch.setattr(autotune, name, reply)

    examining(monkeypatch, questions)
    answering("_tune_gpu_share", 0.25)
    answering("_tune_cpus", 4.0)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": 1.0})
    monkeypatch.setattr("ray.nodes", lambda: [LARGE])
    return questions


@pytest.fixture
def decided(tmp_path: Path) -> Callable[..., ResolvedSettings]:
    """Decides for the tiny sweep with these resources, after earlier runs, or one that left the answers `before`."""

    def decide_for(precision: str = "fp32", before: dict[str, Any] | None = None, **resources: Any) -> ResolvedSettings:
        options = [f"resources.{name}={value}" for name, value in resources.items()] + [f"precision={precision}"]
        folder = SweepFolder(open_storage(str(tmp_path / "runs"), create=True), "tiny")
        if before is not None:
            write_resolved(folder, before)
        driver = SimpleNamespace(folder=folder, signal=None, announce=lambda line: None)
        plan = make_plan(load_spec(str(tiny_sweep(tmp_path)), options), folder.storage)
        return resolve_settings(cast(Driver, driver), plan, StagedDataset(source=plan.spec.source()))

    return decide_for


def test_what_the_sweep_file_says_is_asked_of_nobody(decided: Callable[..., ResolvedSettings], asked: list[str]) -> None:
    assert decided(device="cpu", cpus_per_trial=2) == ResolvedSettings(device="cpu", cpus_per_trial=2.0)
    assert asked == ["networks"]  # which no sweep file answers
    asked.clear()
    written = decided(device="cuda", cpus_per_trial=0.5, gpus_per_trial=0.5)
    assert written == ResolvedSettings(device="cuda", cpus_per_trial=0.5, gpus_per_trial=0.5)
    assert asked == ["networks"]  # once for each device
    asked.clear()
    assert decided(device="auto") == ResolvedSettings(device="cuda", gpus_per_trial=1.0)  # there is one
    assert asked == []


@pytest.mark.parametrize(
    ("settings", "questions", "expected"),
    [
        ({"precision": "auto"}, ["precision", "networks"], ResolvedSettings(device="cpu", precision="bf16")),
        ({"compile": "true"}, ["compile", "networks"], ResolvedSettings(device="cpu", precision="bf16")),
        ({"cpus_per_trial": "auto"}, ["networks", "_tune_cpus"], ResolvedSettings(device="cpu", cpus_per_trial=4.0)),
        (
            {"device": "cuda", "gpus_per_trial": "auto"},
            ["networks", "_tune_gpu_share"],
            ResolvedSettings(device="cuda", gpus_per_trial=0.25),
        ),
        (
            {"device": "cuda", "gpus_per_trial": "auto", "cpus_per_trial": "auto", "precision": "auto", "compile": "true"},
            ["precision", "compile", "networks", "_tune_gpu_share", "_tune_cpus"],
            ResolvedSettings(device="cuda", precision="bf16", cpus_per_trial=4.0, gpus_per_trial=0.25),
        ),
    ],
)
def test_only_open_settings_are_measured_in_the_first_run(
    decided: Callable[..., ResolvedSettings],
    asked: list[str],
    settings: dict[str, Any],
    questions: list[str],
    expected: ResolvedSettings,
) -> None:
    first = decided(**{"device": "cpu"} | settings)
    assert asked == questions
    assert first == expected
    asked.clear()
    assert decided(**{"device": "cpu"} | settings) == first
    assert asked == []


def test_settings_of_another_device_are_resolved_again(decided: Callable[..., ResolvedSettings], asked: list[str]) -> None:
    before = {"device": "cuda", "precision": "fp32", "cpus_per_trial": 8.0, "gpus_per_trial": 0.5}
    assert decided(device="cpu", cpus_per_trial="auto", precision="auto", before=before).cpus_per_trial == 4.0
    assert asked == ["precision", "networks", "_tune_cpus"]


@pytest.mark.parametrize(
    ("written", "automatic", "question"),
    [
        ({"cpus_per_trial": 1}, {"cpus_per_trial": "auto"}, "_tune_cpus"),
        ({"device": "cuda"}, {"device": "cuda", "gpus_per_trial": "auto"}, "_tune_gpu_share"),
        ({"precision": "auto"}, {"precision": "auto", "compile": "true"}, "compile"),
    ],
)
def test_explicit_settings_of_an_earlier_run_are_no_measurement(
    decided: Callable[..., ResolvedSettings],
    asked: list[str],
    written: dict[str, Any],
    automatic: dict[str, Any],
    question: str,
) -> None:
    decided(**{"device": "cpu"} | written)
    asked.clear()
    decided(**{"device": "cpu"} | automatic)
    assert asked == [question]


@pytest.mark.parametrize(
    ("resources", "before", "message"),
    [
        ({"device": "cuda"}, None, "GPUs are requested, but the cluster has none; set resources.device: cpu"),
        ({"device": "auto", "gpus_per_trial": 0.5}, None, "GPUs are requested"),
        ({"device": "cuda", "max_concurrent": 4}, None, "GPUs are requested"),  # our own Ray does not grow
        ({"device": "auto"}, {"device": "cuda"}, "this sweep ran on GPUs before, but the cluster has none"),
    ],
)
def test_cluster_without_the_needed_gpus_is_refused(
    decided: Callable[..., ResolvedSettings],
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    resources: dict[str, Any],
    before: dict[str, Any] | None,
    message: str,
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0})
    with pytest.raises(SetupError, match=message):
        decided(before=before, **resources)


def test_without_a_gpu_and_without_a_word_a_sweep_runs_on_cpus(
    decided: Callable[..., ResolvedSettings], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0})
    assert decided(device="auto") == ResolvedSettings(device="cpu")
    assert asked == ["networks"]


# Without workers: which candidates are measured


@dataclass
class Node:
    """A node with 8 CPUs and a GPU of 32 GiB. Each trial trains 100 images/s, but more than four slow each other down."""

    trial_gib: int = 1
    measured: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    @contextmanager
    def probes(
        self, driver: Any, plan: Any, data: Any, choices: Any, count: int, needs: dict[str, float], node: Any
    ) -> Iterator[tuple[Callable[[], float], int, Any]]:
        self.measured.append((count, needs))
        yield lambda: 100.0 * count if count <= 4 else 300.0, self.trial_gib << 30, None


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node()
    examining(monkeypatch, [])
    monkeypatch.setattr(autotune, "_probes", node.probes)
    monkeypatch.setattr("ray.nodes", lambda: [LARGE])
    monkeypatch.setattr(autotune, "_ask_all", lambda driver, processes, *question: [32 << 30])  # bytes of the GPU
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": 1.0})
    return node


def test_a_node_is_filled_with_every_number_of_threads(decided: Callable[..., ResolvedSettings], node: Node) -> None:
    choices = decided(device="cpu", cpus_per_trial="auto")
    assert [(count, needs["num_cpus"]) for count, needs in node.measured] == [(8, 1), (4, 2), (2, 4), (1, 8)]
    assert choices.cpus_per_trial == 2.0


@pytest.mark.parametrize(
    ("trial_gib", "counts", "share"),
    [
        (1, [1, 2, 4, 8], 1 / 4),  # 16 would fit, but 8 no longer pay
        (7, [1, 2, 4], 1 / 4),  # 4 * 7 GiB are nine tenths of the memory, nearly
        (8, [1, 2], 1 / 2),
        (30, [1], 1.0),
    ],
)
def test_trials_share_a_gpu_as_long_as_it_pays_and_they_fit(
    decided: Callable[..., ResolvedSettings], node: Node, trial_gib: int, counts: list[int], share: float
) -> None:
    node.trial_gib = trial_gib
    choices = decided(device="cuda", gpus_per_trial="auto")
    assert [count for count, _ in node.measured] == counts
    assert [needs["num_gpus"] for _, needs in node.measured] == [1 / count for count in counts]
    assert choices.gpus_per_trial == share


def test_threads_on_a_gpu_are_measured_at_the_tuned_share(decided: Callable[..., ResolvedSettings], node: Node) -> None:
    choices = decided(device="cuda", gpus_per_trial="auto", cpus_per_trial="auto")
    assert node.measured[4:] == [
        (4, {"num_cpus": 1, "num_gpus": 0.25}),
        (4, {"num_cpus": 2, "num_gpus": 0.25}),
        (2, {"num_cpus": 4, "num_gpus": 0.25}),
        (1, {"num_cpus": 8, "num_gpus": 0.25}),
    ]
    assert (choices.gpus_per_trial, choices.cpus_per_trial) == (0.25, 1.0)


def test_node_lost_while_measured_gives_way_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    driver = cast(Driver, SimpleNamespace(announce=messages.append))

    def measured(node: dict[str, Any]) -> float:
        if node is LARGE:
            raise ProbeLostError("its probe failed")
        return 2.0

    monkeypatch.setattr("ray.nodes", lambda: [SMALL, LARGE])
    assert autotune._on_largest_node(driver, measured, "CPU", "CPU", ()) == 2.0
    assert messages == ["node 10.0.0.2 lost a probe; measuring on another node"]
    with pytest.raises(ProbeLostError):
        autotune._on_largest_node(driver, measured, "CPU", "CPU", ("small",))


# On real Ray

AUTOMATIC = """\
name: automatic
dataset: {name: digits, limit: 300}
model: convnet
search: {prune_iterations: [1]}
baseline: none
sparsity: 0.9
training: {epochs: 1, batch_size: 50, lr: 0.1}
resources: {device: cpu, cpus_per_trial: auto}
"""


@pytest.mark.long
def test_threads_are_measured_and_trials_compute_with_them(tmp_path: Path) -> None:
    file, storage = tmp_path / "automatic.yaml", tmp_path / "runs"
    file.write_text(AUTOMATIC)
    sweep = storage / "sweeps" / "automatic"
    drive_sweep("run", file, "--storage", storage, "--quiet")
    chosen = json.loads((sweep / "resolved.json").read_text())
    log = (sweep / "sweep.log").read_text()
    (line,) = [line for line in log.splitlines() if "CPUs per trial" in line]
    cpus = len(os.sched_getaffinity(0))
    threads = [2**power for power in range(cpus.bit_length())]
    assert chosen["cpus_per_trial"] in threads
    assert [int(part.split(":")[0]) for part in line.rpartition("trial: ")[2].split(", ")] == threads
    assert chosen["precision"] == resolve_precision("auto", "cpu")
    results = [json.loads(path.read_text()) for path in storage.glob("trials/*/result.json")]
    computed_with = [(one["threads"], one["precision"]) for result in results for one in result["fingerprints"]]
    assert computed_with == [(chosen["cpus_per_trial"], chosen["precision"])]
