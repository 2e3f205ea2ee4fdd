"""What `plan` says of time, bytes and price, and what it says where it cannot know."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.durations import Timed, Work, network_of
from orchestrator.planning.given_speed import at_speed
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.terminal.plan import Measured, plan_facts, print_plan
from tests.support.cli import tiny_sweep
from tests.support.trials import write_result
from trainables.config.keys import canonical


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


@pytest.fixture
def plan(tmp_path: Path, storage: Storage) -> Plan:
    return make_plan(load_spec(str(tiny_sweep(tmp_path))), storage)


def printed(plan: Plan, capsys: pytest.CaptureFixture[str], *arguments: Any, **options: Any) -> str:
    print_plan(plan, plan_facts(plan, *arguments, **options))
    return capsys.readouterr().out


def measurement(plan: Plan) -> Measured:
    """100 s an epoch, and no time for rounds."""
    network = network_of(plan.trials[0].config)
    works = [Work(network=network, method="drive", epochs=1), Work(network=network, method="drive", epochs=0, rounds=1)]
    timed = [Timed(work=one, seconds=100.0 * one.epochs, epoch_seconds=100.0 * one.epochs) for one in works]
    return Measured(timed=timed, device="cpu", where="alone on this machine (a processor)")


def test_without_records_the_time_is_not_known_and_the_way_to_know_is_named(
    plan: Plan, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(plan, capsys, storage, price_per_hour=2.0)
    assert "time: not known: the storage has no finished trials of convnet on these data" in text
    assert "--measure times a few batches on this machine" in text
    assert "price: not known: the time is not known" in text
    assert " 0 s" not in text
    assert "written: about" in text


def test_records_give_time_range_and_price(plan: Plan, storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    config = plan.trials[0].config
    for digit, seconds in zip("abcd", (100.0, 110.0, 95.0, 105.0), strict=True):
        metrics = {"cost/total_seconds": seconds * config.trained_epochs}
        result = {"config": canonical(config), "metrics": metrics, "model_sha256": "0" * 64, "model_bytes": 9, "device": "chip"}
        write_result(storage, digit * 16, result)
    text = printed(plan, capsys, storage, price_per_hour=2.0)
    hours = 102.5 * plan.epochs()["shared"] / 3600
    assert " of one slot (" in text
    assert ", by 4 finished trials on chip" in text
    facts = plan_facts(plan, storage, price_per_hour=2.0)
    assert facts["slot_hours"] == pytest.approx(hours)
    low, high = facts["slot_hours_range"]
    assert low < hours < high
    assert facts["price"]["amount"] == pytest.approx(2.0 * hours)
    assert f"= 2 for a slot hour x {hours:.3g} slot hours" in text


def test_a_measurement_is_named_with_its_place(plan: Plan, storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(plan, capsys, storage, measurement(plan))
    assert "of one slot, without the start of trials; measured alone on this machine (a processor)" in text
    facts = plan_facts(plan, storage, measurement(plan))
    assert facts["slot_hours"] == pytest.approx(100 * plan.epochs()["shared"] / 3600)
    assert facts["slot_hours_range"] is facts["price"] is None


def test_a_given_speed_is_named_with_what_it_leaves_out(
    plan: Plan, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(plan, capsys, storage, price_per_hour=2.0, given=at_speed(plan, 1500.0))
    assert "of one slot, at 1,500 images per second as given, for training alone: pruning" in " ".join(text.split())
    assert "price: about" in text
    assert plan_facts(plan, storage, given=at_speed(plan, 1500.0))["time_source"]["images_per_second"] == 1500.0


@pytest.mark.parametrize("width", [60, 80])
def test_no_line_is_wider_than_the_terminal(
    plan: Plan, storage: Storage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    text = printed(plan, capsys, storage, measurement(plan), price_per_hour=2.0)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert len(lines) > 8
    assert max(map(len, lines)) <= width
