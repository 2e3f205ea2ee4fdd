"""What a plan counts: trials, shared warm-ups, epochs, reuse. Results are written by real trials or as records on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.errors import UserError
from orchestrator.planning.plan import make_plan
from orchestrator.spec.grid import expand
from orchestrator.spec.loader import load_spec
from orchestrator.spec.trial_names import trial_names
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.local import LocalStorage
from orchestrator.terminal.plan import plan_facts
from tests.support.cli import tiny_sweep
from tests.support.trials import write_result
from trainables.config import keys


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


def record_result(storage: Storage, key: str, **fields: Any) -> None:
    result = {
        "config": {"model": "another", "dataset": {}},
        "metrics": {},
        "model_sha256": "0" * 64,
        "model_bytes": 1000,
    } | fields
    write_result(storage, key, result)


def facts(file: Path | str, storage: Storage, *options: str, hash_data: bool = False) -> dict[str, Any]:
    plan = make_plan(load_spec(str(file), options), storage, hash_data)
    return plan_facts(plan, storage)


def test_the_digits_sweep_shares_two_trunks_of_four_epochs(storage: Storage) -> None:
    plan = facts("digits", storage)
    assert (plan["trials"], plan["reused"]) == (50, 0)
    assert [(warmup["epochs"], warmup["trials"]) for warmup in plan["warmups"]] == [(4, 18), (4, 18)]
    # 50 trials of 8 sparse epochs; warm-ups 1 + 2 + 4 for each of 3 x 2 settings and 2 seeds, or 4 for each seed.
    assert plan["epochs"] == {"unshared": 50 * 8 + 7 * 12, "shared": 50 * 8 + 4 * 2}


def test_plan_shows_the_revision_of_finished_trials_it_reuses(tmp_path: Path, storage: Storage) -> None:
    file = tiny_sweep(tmp_path)
    keys = [one["key"] for one in facts(file, storage)["keys"]]
    for key in keys[:3]:
        record_result(storage, key, revision="abc")
    plan = facts(file, storage)
    assert plan["reused"] == 3
    assert plan["reused_by_revision"] == {"abc": 3}
    assert [one["done"] for one in plan["keys"]] == [True] * 3 + [False] * 4


def test_a_raised_numerics_integer_reuses_nothing(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tiny_sweep(tmp_path)
    for one in facts(file, storage)["keys"]:
        record_result(storage, one["key"])
    assert facts(file, storage)["reused"] == 7
    monkeypatch.setitem(keys.NUMERICS, "scores", keys.NUMERICS["scores"] + 1)
    assert facts(file, storage)["reused"] == 0


def test_unshared_warm_ups_cost_what_every_trial_asks_for(tmp_path: Path, storage: Storage) -> None:
    plan = facts(tiny_sweep(tmp_path), storage, "share_warmups=false")
    assert plan["epochs"]["shared"] == plan["epochs"]["unshared"] == 7 * 2 + 2 * (1 + 2)


def test_plan_shows_the_difference_to_the_last_run(tmp_path: Path, storage: Storage) -> None:
    file = tiny_sweep(tmp_path)
    keys = [{"key": one["key"], "name": one["name"]} for one in facts(file, storage)["keys"]]
    storage.write_json("sweeps/tiny/trials.json", {"trials": keys})
    plan = facts(file, storage, "search.warmup_epochs=[0, 1, 3]")
    assert (plan["added"], plan["removed"]) == (2, 2)


def image_folder(root: Path) -> Path:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(6):
                Image.new("RGB", (8, 8), (index * 10, 20 * (label == "dog"), 30)).save(folder / f"{index}.png")
    return root


def on_folder(root: Path) -> list[str]:
    return [f"dataset={{name: image_folder, root: {root}, image_size: 8}}", "training.batch_size=4"]


def test_plan_without_some_results_has_those_trials_to_do(tmp_path: Path, storage: Storage) -> None:
    spec = load_spec(str(tiny_sweep(tmp_path)))
    for trial in make_plan(spec, storage).trials:
        record_result(storage, trial.key)
    plan = make_plan(spec, storage)
    again = {trial.key for trial in plan.trials if trial.config.warmup_epochs == 1}
    without = plan.without_results(again)
    assert [trial.key for trial in without.unfinished] == [trial.key for trial in plan.trials if trial.key in again]
    assert len(without.unfinished) == 2
    assert [warmup.trials for warmup in without.warmups(unfinished_only=True)] == [2]
    kept = [trial for trial in without.trials if trial.key not in again]
    assert kept == [trial for trial in plan.trials if trial.key not in again]
    assert [(trial.key, trial.name) for trial in without.trials] == [(trial.key, trial.name) for trial in plan.trials]
    assert plan.unfinished == []  # the plan itself is as it was
    assert plan.without_results(()) == plan.without_results({"unknown"}) == plan


def test_unread_data_show_no_reuse_until_they_are_hashed(tmp_path: Path, storage: Storage) -> None:
    file, options = tiny_sweep(tmp_path), on_folder(image_folder(tmp_path / "images"))
    plan = facts(file, storage, *options)
    assert plan["data_digest"] is None
    assert plan["keys"][0]["key"] is None
    assert plan["trials"] == 7
    hashed = facts(file, storage, *options, hash_data=True)
    assert hashed["data_digest"]
    assert facts(file, storage, *options)["data_digest"] == hashed["data_digest"]


def test_changed_data_are_not_taken_for_the_old_ones(tmp_path: Path, storage: Storage) -> None:
    file, root = tiny_sweep(tmp_path), image_folder(tmp_path / "images")
    first = facts(file, storage, *on_folder(root), hash_data=True)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(root / "train" / "cat" / "0.png")
    os.utime(root / "train" / "cat" / "0.png", (1, 1))
    assert facts(file, storage, *on_folder(root))["data_digest"] is None
    assert facts(file, storage, *on_folder(root), hash_data=True)["data_digest"] != first["data_digest"]


def test_missing_data_are_reported_by_plan_and_rejected_by_run(tmp_path: Path, storage: Storage) -> None:
    file, options = tiny_sweep(tmp_path), on_folder(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in facts(file, storage, *options)["data_problem"]
    with pytest.raises(UserError, match=r"dataset\.root: no folder .*nowhere.* give the folder"):
        make_plan(load_spec(str(file), options), storage, hash_data=True)


def test_plan_estimates_time_and_size_from_similar_trials(tmp_path: Path, storage: Storage) -> None:
    """Those of the same network and data, in any sweep of the storage."""
    file = tiny_sweep(tmp_path)
    assert facts(file, storage)["slot_hours"] is None
    plan = make_plan(load_spec(str(file)), storage)
    first = plan.trials[0]
    record_result(
        storage, first.key, config=keys.canonical(first.config), metrics={"cost/total_seconds": 20.0}, model_bytes=500
    )
    answer = facts(file, storage)
    assert answer["slot_hours"] == pytest.approx(10.0 * answer["epochs"]["shared"] / 3600)  # two epochs took 20 s
    assert answer["time_source"]["records"] == 1
    dense = 4 * 15_418 + 1_500  # all its numbers and what is around them
    assert answer["model_bytes"] == pytest.approx(5 * 500 + dense, rel=0.02)


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    file = tiny_sweep(tmp_path)
    facts(file, LocalStorage(str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()
    assert json.dumps(facts(file, LocalStorage(str(tmp_path / "new"))))


def test_a_trial_stands_once_whatever_its_method_does_not_use(tmp_path: Path) -> None:
    file = tmp_path / "methods.yaml"
    file.write_text(
        "name: methods\ndataset: {name: digits}\nmodel: convnet\nmethod: [drive, snip, magnitude]\nbaseline: none\n"
        "search: {prune_iterations: [1, 10], drive.normalize: [mean, rank]}\nsparsity: 0.9\n"
    )
    configs = expand(load_spec(str(file)))
    assert trial_names(configs) == [
        "drive-w00-i001-s0.9-r0-normalizemean",
        "drive-w00-i001-s0.9-r0-normalizerank",
        "drive-w00-i010-s0.9-r0-normalizemean",
        "drive-w00-i010-s0.9-r0-normalizerank",
        "snip-w00-i001-s0.9-r0",
        "snip-w00-i010-s0.9-r0",
        "magnitude-w00-s0.9-r0",
    ]


def test_a_network_too_large_for_its_images_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vgg.yaml"
    file.write_text("name: vgg\ndataset: {name: digits}\nmodel: vgg16\nwidth: 2\n")
    with pytest.raises(UserError) as error:
        load_spec(str(file))
    assert "model must be a network for images of 8 x 8 pixels, got model 'vgg16'" in str(error.value)
    assert "width must be 1 for this model" in str(error.value)
