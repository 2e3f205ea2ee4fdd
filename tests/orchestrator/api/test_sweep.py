"""`orchestrator.load`: tables, recommendation, models and charts are what the records say."""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import orchestrator
from orchestrator import Sweep, SweepError
from orchestrator.api.running import _file_of
from orchestrator.api.tables import trial_table
from orchestrator.page import page
from orchestrator.spec.grid import expand
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_state import SweepState, TrialStatus
from tests import ROOT
from tests.orchestrator.api.conftest import SETTINGS
from tests.support.cli import tiny_sweep
from tests.test_docs import fenced
from trainables.config.keys import complete
from trainables.export.sparse_model import load_sparse_model
from trainables.records.metrics import points_from_lines

pytestmark = pytest.mark.slow  # the first of them computes the sweep
COLUMNS = {
    "val_accuracy": "val/accuracy",
    "test_accuracy": "test/accuracy",
    "flops": "model/flops",
    "speedup": "model/theoretical_speedup",
    "bytes": "model/bytes",
    "seconds": "cost/total_seconds",
    "epochs": "cost/total_dense_epochs",
}


def record(computed: Path, key: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((computed / "runs/trials" / key / "result.json").read_text())
    return result


def test_trials_are_the_records_of_all_trials(sweep: Sweep, computed: Path) -> None:
    table = sweep.trials()
    assert len(table) == len(set(table.key)) == 6
    finished = table[table.state == "finished"]
    assert set(finished.key) == {path.parent.name for path in (computed / "runs/trials").glob("*/result.json")}
    for row in finished.to_dict("records"):
        result = record(computed, row["key"])
        assert {name: row[name] for name in COLUMNS} == {name: result["metrics"][metric] for name, metric in COLUMNS.items()}
        assert row["kept"] == result["kept_weights"] / result["prunable_weights"]
        assert (row["sparsity"], row["seed"]) == (result["config"].get("sparsity", 0.0), result["seed"])
    (failed,) = table[table.state != "finished"].to_dict("records")
    assert (failed["state"], failed["error"]) == ("failed", "the training loss became nan")
    assert math.isnan(failed["val_accuracy"])
    assert table.prune_iterations[table.method == "dense"].isna().all()
    assert not [name for name in table.columns if name.startswith(("drive.", "training."))], "no key but the axes differs"


def test_other_keys_that_differ_are_columns(computed: Path, tmp_path: Path) -> None:
    shutil.copytree(computed / "runs", tmp_path / "runs")
    spec = load_spec(str(tiny_sweep(tmp_path)), [*SETTINGS, "search.training.lr=[0.1, 0.2]"])
    state = SweepState(sweep="digits")
    for number, config in enumerate(expand(spec)):
        state.trials[str(number)] = TrialStatus(key=str(number), name=f"t{number}", state="waiting", config=complete(config))
    loaded = orchestrator.load("digits", storage=str(tmp_path / "runs"))
    loaded._folder.write_state(state)
    table = trial_table(loaded._results())
    assert set(table["training.lr"]) == {0.1, 0.2}
    assert len(table) == 2 * 6


def test_curves_are_the_points_of_the_trial(sweep: Sweep, computed: Path) -> None:
    key = sweep.recommendation()[0].best.trials[0].key
    points = points_from_lines((computed / "runs/trials" / key / "metrics.jsonl").read_bytes())
    epochs, rounds = sweep.curves(key), sweep.curves(key, per="round")
    for table, prefixes in ((epochs, ("train/", "val/")), (rounds, ("prune/",))):
        expected = {(point.key, point.step): point.value for point in points if point.key.startswith(prefixes)}
        shown = {(name, step): table[name][step] for name in table for step in table.index if not math.isnan(table[name][step])}
        assert shown == expected
    assert (epochs.index.name, rounds.index.name) == ("epoch", "round")


def test_the_model_is_that_of_the_recommended_seed_with_the_best_validation(sweep: Sweep, computed: Path) -> None:
    (one,) = sweep.recommendation()
    best = max(one.keys, key=lambda key: record(computed, key)["metrics"]["val/accuracy"])
    model = sweep.model()
    assert model.sha256 == record(computed, best)["model_sha256"]
    other = next(key for key in sweep.trials().key if key not in one.keys)
    images = torch.rand(3, 1, 8, 8)
    stored = load_sparse_model(computed / "runs/trials" / other / "model.safetensors.zst")
    assert torch.equal(sweep.model(other).predict(images), stored.predict(images))
    assert sweep.model(group=one.name).sha256 == model.sha256


def test_a_damaged_model_is_refused(computed: Path, tmp_path: Path) -> None:
    shutil.copytree(computed / "runs", tmp_path / "runs")
    sweep = orchestrator.load("digits", storage=str(tmp_path / "runs"))
    key = sweep.trials().key[0]
    (tmp_path / "runs/trials" / key / "model.safetensors.zst").write_bytes(b"other")
    with pytest.raises(SweepError, match="does not match the SHA-256"):
        sweep.model(key)


def test_what_is_not_there_is_named_with_what_is(sweep: Sweep, computed: Path) -> None:
    failed = sweep.trials().key[5]
    calls: dict[str, Callable[[], object]] = {
        "no trial 'x' in sweep 'digits'": lambda: sweep.curves("x"),
        "has no result: it is failed": lambda: sweep.model(failed),
        "group must be one with a recommendation, got 's0.5'; there is 's0.9'": lambda: sweep.model(group="s0.5"),
        "there is none; heat maps: sparsity 0.9": lambda: sweep.heat_map(0.5),
        "must end in .png, .svg, .json, got 'x.gif'": lambda: sweep.heat_map().save("x.gif"),
        "no sweep 'none' in storage": lambda: orchestrator.load("none", storage=str(computed / "runs")),
    }
    for message, call in calls.items():
        with pytest.raises(SweepError, match=re.escape(message)):
            call()


def test_a_notebook_shows_the_recommendation_and_draws_the_heat_map(sweep: Sweep, tmp_path: Path) -> None:
    html = sweep._repr_html_()
    assert html.startswith("<div><b>digits</b>: 5 of 6 trials finished, 1 failed<ul><li>s0.9: ")
    chart = sweep.heat_map(0.9)
    bundle = chart._repr_mimebundle_()
    rows = bundle["application/vnd.vegalite.v6+json"]["data"]["values"]
    assert {(row["warmup"], row["row"]) for row in rows} == {("0", "1"), ("1", "1")}
    assert bundle["image/svg+xml"].startswith("<svg")
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<svg"), (".json", b"{")):
        chart.save(tmp_path / f"map{ending}")
        assert (tmp_path / f"map{ending}").read_bytes().startswith(start)


def test_the_report_is_the_page(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "library", lambda: "")  # bundling takes seconds; tests of the page look at it
    assert sweep.report().startswith("<!doctype html>")


def test_without_pandas_tables_alone_are_refused(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SweepError, match="tables need pandas"):
        sweep.trials()
    assert sweep.recommendation()


def test_the_blocks_of_the_guide_run(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the last one, which runs a sweep, the specification is read; tests/integration/test_sweep.py runs one."""
    shutil.copytree(computed / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    *blocks, running = fenced((ROOT / "orchestrator/guide/python.md").read_text(), "python")
    (call,) = (node for node in ast.walk(ast.parse(running)) if isinstance(node, ast.Call))
    with _file_of(ast.literal_eval(call.args[0])) as file:
        assert load_spec(file).name == "digits"
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["scores"].shape == (1, 10)
    assert (tmp_path / "heat-map.png").exists()
