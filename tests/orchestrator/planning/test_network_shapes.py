"""The numbers of users' networks: built in a process of their own, kept on this machine, and a hang is named with its line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.planning.network_shapes import shape_of_network
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.factory import open_storage
from trainables.errors import ConfigError

pytestmark = pytest.mark.process
NETS = """\
import os, time
from torch import nn


def small(image_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


def stuck(image_shape, num_classes):
    time.sleep(600)


def lost(image_shape, num_classes):
    os._exit(9)
"""
SWEEP = "name: s\ndataset: {{name: digits}}\nmodel: {{module: shaped_nets.{net}}}\nsparsity: 0.9\nbaseline: none\n"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path / "cache"))
    Path("shaped_nets.py").write_text(NETS)


def planned(net: str) -> Plan:
    Path("s.yaml").write_text(SWEEP.format(net=net))
    return make_plan(load_spec("s.yaml", []), open_storage("runs", create=True), hash_data=True)


def test_network_is_built_elsewhere_and_its_numbers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("small")
    shape = shape_of_network(plan, plan.trials[0].config)
    assert (shape.layers, shape.parameters, shape.values) == ({"1": (10, 64)}, 650, 650)
    assert "shaped_nets" not in sys.modules
    monkeypatch.setattr("orchestrator.planning.network_shapes.ask", None)
    assert shape_of_network(plan, plan.trials[0].config) == shape


def test_network_that_ends_its_process_ends_no_command() -> None:
    plan = planned("lost")
    with pytest.raises(ConfigError, match=r"shaped_nets\.lost must return a network, got its process exited with 9"):
        shape_of_network(plan, plan.trials[0].config)


@pytest.mark.long
def test_network_that_hangs_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.planning.network_shapes.limit_s", lambda stage_timeout: 8.0)
    plan = planned("stuck")
    with pytest.raises(UserError, match=r"must return a network, got a hang: .* waiting in shaped_nets\.py line 10 \(stuck\)"):
        shape_of_network(plan, plan.trials[0].config)
