"""What of a plan is shown in MLflow: the params of every trial's run."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.plan_runs import planned_runs
from orchestrator.tracking.run_outputs import model_name


def params(text: str, folder: Path) -> dict[str, dict[str, str]]:
    """Run name -> params."""
    file = folder / "s.yaml"
    file.write_text("name: x\ndataset: {name: digits}\nmodel: convnet\nsparsity: 0.9\n" + text)
    plan = make_plan(load_spec(str(file)), LocalStorage(str(folder)))
    return {item.name: item.params for item in planned_runs(plan).values() if item.role == "trial"}


def test_options_of_one_method_are_params_of_its_trials_alone(tmp_path: Path) -> None:
    runs = params("method: [drive, random]\nsearch: {drive.normalize: [mean, rank]}\n", tmp_path)
    normalize = {name: one.get("drive.normalize") for name, one in runs.items()}
    assert sorted(filter(None, normalize.values())) == ["mean", "rank"]
    assert [normalize[name] for name in runs if not name.startswith("drive")] == [None, None]  # random, and the dense baseline


def test_iterations_are_those_that_a_trial_runs(tmp_path: Path) -> None:
    runs = params("method: [drive, magnitude, imp, srste]\nprune_iterations: 20\n", tmp_path)
    assert {one["method"]: one.get("prune_iterations") for one in runs.values()} == {
        "drive": "20",
        "magnitude": "1",
        "imp": "11",
        "srste": None,
        "dense": None,
    }


@pytest.mark.parametrize(
    "name", ["w04-i050-s0.95-r0", "srste-w0-pattern2:4-r0", 'w0-exclude["head","blocks.0.*"]-r0', "a/b%c'd"]
)
def test_every_name_of_a_run_gives_a_name_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_logged_model_name

    _validate_logged_model_name(model_name(name))
    with pytest.raises(Exception, match="Invalid model name"):
        _validate_logged_model_name(f"sparse-{name}")
