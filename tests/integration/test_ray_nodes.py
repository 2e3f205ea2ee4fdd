"""Sweeps on a real cluster whose nodes come, are lost, or lack what a trial needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import curves, kill_all, start, started, status, tiny_sweep, wait_for
from tests.support.faulty_nodes import join, namespaces_work, without
from tests.support.ray_nodes import RayNodes


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    """A head without CPUs; the tests add worker nodes and take them away."""
    with RayNodes() as nodes:
        yield nodes


@pytest.fixture(autouse=True)
def inside(cluster: RayNodes, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield
    while started:
        process = started.pop()
        if process.poll() is None:
            kill_all(process)
    for node in cluster.workers:
        if not node.ended():
            node.kill()


def log_of(storage: Path, name: str = "tiny") -> str:
    file = storage / "sweeps" / name / "sweep.log"
    return file.read_text() if file.exists() else ""


@pytest.mark.long
def test_a_sweep_waits_while_no_node_is_there_and_says_so(cluster: RayNodes, tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    file = tiny_sweep(tmp_path, epochs=40)
    process = start("run", file, "--storage", storage, "--address", cluster.gcs, "--set", "search.warmup_epochs=[0]")
    wait_for(lambda: "no node of the cluster has room for a trial" in log_of(storage))
    first = join(cluster)
    wait_for(lambda: len(list(storage.glob("trials/*/checkpoint"))) >= 2)
    first.kill()
    wait_for(lambda: "no node is left that has room for a trial" in log_of(storage))
    join(cluster)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    log = log_of(storage)
    assert log.count("there is room for 2 trials again") == 1  # the first node is awaited by the checks of the network
    assert f"its node {first.address} was lost" in log
    assert "its process was lost" not in log
    assert status("tiny", storage)["finished"] == 3
    assert sorted(json.loads(path.read_text())["attempt"] for path in storage.glob("trials/*/result.json"))[-1] == 2
    curves(storage)  # no point is there twice


@pytest.mark.long
@pytest.mark.skipif(not namespaces_work(), reason="mount namespaces (unshare -m) need root")
def test_later_node_without_the_storage_costs_no_trial(cluster: RayNodes, tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    join(cluster, cpus=1)
    options = ("--storage", storage, "--address", cluster.gcs, "--set", "search.warmup_epochs=[0]")
    process = start("run", tiny_sweep(tmp_path, epochs=200), *options)
    wait_for(lambda: list(storage.glob("trials/*/checkpoint")))
    late = join(cluster, cpus=1, prefix=without(storage))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert output.count(f"node {late.address} is excluded for 10 minutes: it does not see the sweep's files") == 1
    answer = status("tiny", storage)
    assert (answer["finished"], answer["failed"]) == (3, 0)
