"""`plan --images-per-second`: hours from a speed that the user knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.planning.estimate import estimate, read_records
from orchestrator.planning.given_speed import at_speed, parsed_speed
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from tests.support.cli import tiny_sweep


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


def hours(plan: Plan, storage: Storage, speed: float) -> float | None:
    return estimate(plan, read_records(plan, storage), at_speed(plan, speed).timed).hours


def test_hours_are_those_of_all_images_that_train(tmp_path: Path, storage: Storage) -> None:
    plan = make_plan(load_spec(str(tiny_sweep(tmp_path)), ["dataset.limit=100", "dataset.validation=0.1"]), storage)
    config = plan.trials[0].config
    images = 90 // config.training.batch_size * config.training.batch_size  # whole batches
    assert images > 0
    assert hours(plan, storage, 50.0) == pytest.approx(plan.epochs()["shared"] * images / 50 / 3600)


def test_imagenet_need_not_be_on_this_machine(storage: Storage) -> None:
    plan = make_plan(load_spec("reference/imagenet-resnet50", [f"storage={storage.root}"]), storage)
    assert plan.data_facts is None
    epochs, held_out = plan.epochs()["shared"], 128_117
    batches = (1_281_167 - held_out) // 256
    assert hours(plan, storage, 2500.0) == pytest.approx(epochs * batches * 256 / 2500 / 3600)


def test_an_unknown_number_of_images_is_an_error(tmp_path: Path, storage: Storage) -> None:
    settings = ["dataset.name=image_folder", "dataset.limit=null", "dataset.image_size=8", f"dataset.root={tmp_path / 'none'}"]
    plan = make_plan(load_spec(str(tiny_sweep(tmp_path)), settings), storage)
    with pytest.raises(UserError, match=r"the number of images of image_folder must be known, got none: .*no folder"):
        at_speed(plan, 50.0)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast", ""])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--images-per-second: must be a number above 0, got"):
        parsed_speed(text)
