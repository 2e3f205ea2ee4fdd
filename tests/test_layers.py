"""Arrows point down, and heavy packages are imported where they are needed: read from the sources, and seen in a process."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRAINABLES = sorted(path.stem for path in (ROOT / "trainables").glob("*.py") if path.stem != "__init__")
ORCHESTRATOR = sorted(path.stem for path in (ROOT / "orchestrator").glob("*.py") if path.stem != "__init__")

# What `trainables/` may not bring with it; readers import what they need when they read.
HEAVY = ("ray", "mlflow", "pyarrow", "sklearn", "torchvision", "pandas", "PIL")
WITH_RAY_OR_MLFLOW = ("stage", "served_model")
WITHOUT_TORCH = (
    "cache",
    "config",
    "data_facts",
    "datasets",
    "decoding",
    "failures",
    "file_digests",
    "findings",
    "image_sizes",
    "image_files",
    "kept_weights",
    "keys",
    "listings",
    "machine",
    "method_config",
    "metrics",
    "network_case",
    "probe",
    "readers",
    "records",
    "runtime",
    "schedules",
    "self_digest",
    "split_checks",
    "splits",
    "user_arrays",
    "user_code",
    "user_data",
    "wording",
)

RAY = ("ray_cluster", "cluster_watch", "node_checks", "packing", "scheduling", "sweep", "jobs", "cluster_checks")
MLFLOW = (
    "tracking",
    "tracking_checks",
    "tracking_database",
    "mlflow_client",
    "model_upload",
    "run_results",
    "sweep_runs",
    "ui",
)


def imported_packages(source: str) -> set[str]:
    """Top-level packages that a file imports anywhere: at its head, in a function, for types, or by name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value.partition(".")[0])
    return found


def loaded_after(code: str, packages: tuple[str, ...], folder: Path = ROOT) -> dict[str, list[str]]:
    """What a fresh process tells: `code` calls tell(label) wherever the packages that are loaded by then matter."""
    script = (
        "import json, sys\ntold = {}\n"
        f"def tell(label): told[label] = sorted(set({packages!r}) & set(sys.modules))\n"
        f"{code}\nprint(json.dumps(told))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return told


def import_lines(package: str, modules: list[str]) -> str:
    return "\n".join(f"import {package}.{module}; tell({module!r})" for module in modules)


@pytest.mark.parametrize("module", TRAINABLES)
def test_trainables_never_import_the_orchestrator(module: str) -> None:
    assert "orchestrator" not in imported_packages((ROOT / "trainables" / f"{module}.py").read_text())


@pytest.mark.parametrize("module", [module for module in TRAINABLES if module not in WITH_RAY_OR_MLFLOW])
def test_trials_know_neither_ray_nor_mlflow(module: str) -> None:
    assert not {"ray", "mlflow"} & imported_packages((ROOT / "trainables" / f"{module}.py").read_text())


@pytest.mark.parametrize("module", ORCHESTRATOR)
def test_ray_and_mlflow_are_imported_by_their_own_modules_alone(module: str) -> None:
    packages = imported_packages((ROOT / "orchestrator" / f"{module}.py").read_text())
    assert "ray" not in packages or module in RAY
    assert "mlflow" not in packages or module in MLFLOW


def test_importing_trainables_loads_nothing_heavy() -> None:
    light_first = [module for module in TRAINABLES if module in WITHOUT_TORCH]
    others = [module for module in TRAINABLES if module not in WITHOUT_TORCH + WITH_RAY_OR_MLFLOW]
    assert len(light_first) == len(WITHOUT_TORCH)
    assert {"phases", "data", "sparse_model"} <= set(others)
    told = loaded_after(import_lines("trainables", light_first + others), (*HEAVY, "torch"))
    for module in light_first:
        assert told[module] == [], f"trainables.{module} or one before it in {light_first}"
    for module in others:
        assert set(told[module]) <= {"torch"}, f"trainables.{module} or one before it in {others}"


@pytest.mark.parametrize("module", [module for module in ("cli", "plan", "spec", "store") if module in ORCHESTRATOR])
def test_commands_start_without_heavy_packages(module: str) -> None:
    packages = ("torch", "ray", "mlflow", "pyarrow", "sklearn", "matplotlib", "pandas")
    assert loaded_after(f"import orchestrator.{module}; tell('here')", packages) == {"here": []}


@pytest.mark.parametrize(
    "line",
    [
        "import ray",
        "import ray.tune as tune",
        "from ray.tune import Tuner",
        "def run():\n    from ray import tune",
        "if TYPE_CHECKING:\n    import ray",
        "import importlib\nimportlib.import_module('ray.tune')",
        "__import__('ray')",
    ],
)
def test_the_reader_of_sources_sees_a_planted_import(line: str) -> None:
    assert "ray" in imported_packages(line)


def test_the_reader_of_sources_takes_only_packages() -> None:
    assert imported_packages("from . import ray\nfrom .ray import x\nimport trainables.ray\nname = 'ray'") == {"trainables"}


def test_the_watcher_of_processes_sees_a_planted_import(tmp_path: Path) -> None:
    package = tmp_path / "planted"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "clean.py").write_text("def later():\n    import fake_heavy\n")
    (package / "dirty.py").write_text("from planted import indirect\n")
    (package / "indirect.py").write_text("import fake_heavy\n")
    (tmp_path / "fake_heavy.py").write_text("")
    told = loaded_after(import_lines("planted", ["clean", "dirty"]), ("fake_heavy",), tmp_path)
    assert told == {"clean": [], "dirty": ["fake_heavy"]}


def test_the_driver_of_a_sweep_does_without_torch() -> None:
    """It names the stage that workers run, and carries their settings; importing PyTorch would take it seconds."""
    assert loaded_after(
        "import orchestrator.execution.sweep, trainables.worker.trainable; tell('sweep')", (*HEAVY, "torch")
    ) == {"sweep": []}
