"""Arrows point down, and heavy packages are imported where they are needed: read from the sources, and seen in a process."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Set
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import trainables
from tests import ROOT

PACKAGES = ("trainables", "orchestrator")

# Folder -> what it may import, besides itself. Files beside the folders are named like folders.
TRAINABLES = {
    "errors": "",
    "findings": "",
    "wording": "",
    "config": "errors",
    "runtime": "errors",
    "custom": "errors config",
    "records": "errors config custom runtime",
    "data": "errors findings wording config runtime custom",
    "models": "errors findings wording config runtime custom",
    "channels": "errors wording",
    "pruning": "errors wording config runtime custom data models channels",
    "training": "errors config runtime custom data models pruning",
    "analysis": "runtime pruning",
    "export": "errors config channels custom runtime data models pruning",
    "trial": "errors config runtime records custom data models channels pruning training analysis export",
    "preflight": "errors findings wording config runtime custom data models channels pruning training",
    "worker": "errors wording config runtime records custom data models pruning training trial preflight",
}
LIGHT = "errors findings wording config runtime custom"
# The same, with what it may import of `trainables`.
ORCHESTRATOR = {
    "errors": ("", ""),
    "command_line": ("", ""),
    "prose": ("", "wording"),
    "uris": ("errors", ""),
    "process": ("errors uris", "runtime"),
    "version": ("process", ""),
    "bug_report": ("errors command_line version", ""),
    "back_off": ("", ""),
    "spec": ("errors command_line uris", f"{LIGHT} data models"),
    "storage": ("errors uris", "errors wording runtime records"),
    "state": ("errors command_line storage", f"{LIGHT} records export"),
    "planning": ("errors command_line process spec storage state", f"{LIGHT} data models pruning preflight records"),
    "preflight": ("errors command_line process storage state planning", f"{LIGHT} data preflight"),
    "tracking": ("errors back_off command_line uris process spec storage state planning", f"{LIGHT} records"),
    "housekeeping": ("errors command_line spec storage state", "records wording"),
    "search": ("errors command_line spec storage state planning", "wording config custom records"),
    "recommendation": ("spec state search", "wording config"),
    "reporting": (
        "errors command_line prose spec storage state search recommendation",
        f"{LIGHT} records pruning analysis export",
    ),
    "figures": ("recommendation reporting search", "config records wording"),
    "page": (
        "command_line figures recommendation reporting search state storage tracking",
        "config errors records runtime wording",
    ),
    "export": (
        "errors command_line version spec storage state planning search recommendation reporting",
        f"{LIGHT} records data export",
    ),
    "terminal": ("command_line prose spec storage state planning search", "wording config runtime"),
    "cluster": ("errors command_line process version storage planning", f"{LIGHT} data"),
    "jobs": ("errors command_line uris process version spec cluster", LIGHT),
    "scheduling": ("back_off cluster process", "errors"),
    "execution": (
        "errors bug_report command_line process version spec storage state planning search preflight tracking"
        " recommendation reporting page terminal cluster scheduling",
        f"{LIGHT} data records preflight trial worker",
    ),
    "repair": (
        "errors command_line spec storage state planning search tracking scheduling housekeeping execution",
        f"{LIGHT} records trial",
    ),
    "diagnostics": (
        "errors command_line prose spec storage state planning search preflight tracking cluster repair",
        f"{LIGHT} data preflight",
    ),
    "commands": (
        "errors command_line uris process version spec storage state planning search preflight tracking reporting page export"
        " terminal jobs diagnostics execution housekeeping",
        "errors wording config records export",
    ),
    "api": (
        "errors command_line process spec storage state recommendation reporting figures page export",
        "config records export",
    ),
    "cli": ("errors bug_report command_line uris process cluster commands", "errors runtime wording"),
}

# Everything else is free of them; inside these files they may still be imported late.
RAY = (
    "trainables/worker/",
    "orchestrator/cluster/",
    "orchestrator/jobs/client.py",
    "orchestrator/scheduling/tune_adapter.py",
    "orchestrator/scheduling/early_stopping.py",
    "orchestrator/execution/autotune.py",
    "orchestrator/execution/sweep.py",
    "orchestrator/diagnostics/nodes.py",
)
MLFLOW = ("orchestrator/tracking/", "orchestrator/diagnostics/tracking.py", "trainables/export/mlflow_model.py")
# What no import of `trainables` may bring with it; data sets import what they need when they are read.
HEAVY = ("ray", "mlflow", "pyarrow", "sklearn", "torchvision", "pandas", "PIL")
TORCH = (
    "trainables/data/splits.py",
    "trainables/data/batches.py",
    "trainables/data/streaming.py",
    "trainables/data/prescaled.py",
    "trainables/data/normalization.py",
    "trainables/models/",
    "trainables/channels/",
    "trainables/pruning/",
    "trainables/training/",
    "trainables/analysis/",
    "trainables/export/",
    "trainables/trial/",
    "trainables/preflight/",
    "trainables/runtime/hashing.py",
    "trainables/worker/speed.py",
    "trainables/worker/warmup_stage.py",
)
# Inside those, what is needed without PyTorch.
WITHOUT_TORCH = (
    "trainables/models/image_sizes.py",
    "trainables/pruning/kept_weights.py",
    "trainables/pruning/sparsity_schedules.py",
    "trainables/training/lr_schedules.py",
    "trainables/preflight/network_case.py",
    "trainables/export/table.py",
    "trainables/worker/probe.py",
    "trainables/worker/trainable.py",
)


@cache
def sources() -> dict[str, str]:
    """Path below the project -> text, of every file of both packages."""
    return {
        file.relative_to(ROOT).as_posix(): file.read_text() for package in PACKAGES for file in (ROOT / package).rglob("*.py")
    }


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def imports_and_calls(source: str) -> list[ast.Import | ast.ImportFrom | ast.Call]:
    """The nodes of a file that may import something, anywhere in it."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)]


def imports_of(source: str, modules: Set[str]) -> set[str]:
    """The modules of both packages that a file imports anywhere: at its head, in a function, for types."""
    imported: set[str] = set()
    for node in imports_and_calls(source):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= names & modules or {node.module}
    return {name for name in imported if name.partition(".")[0] in PACKAGES}


def arrows(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> modules that it imports."""
    modules = {module_of(path) for path in texts}
    return {module_of(path): imports_of(text, modules) for path, text in texts.items()}


def folder_of(module: str) -> str:
    """Folder of a module, or the module itself where it lies beside the folders: "trainables.data", "orchestrator.uris"."""
    return ".".join(module.split(".")[:2])


def folder_arrows(between_modules: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Folder -> folders that it imports."""
    arrows: dict[str, set[str]] = {}
    for module, imported in between_modules.items():
        folder = folder_of(module)
        arrows.setdefault(folder, set()).update(folder_of(one) for one in imported if folder_of(one) != folder)
    return arrows


def levels(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Node -> length of the longest way down from it. Raises CycleError where there is a circle."""
    height: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        height[node] = 1 + max((height[below] for below in graph.get(node, ())), default=-1)
    return height


def allowed(folder: str) -> set[str]:
    """Folders that a folder may import, by the tables above."""
    package, _, name = folder.partition(".")
    of_orchestrator, of_trainables = ("", TRAINABLES[name]) if package == "trainables" else ORCHESTRATOR[name]
    return {f"orchestrator.{one}" for one in of_orchestrator.split()} | {f"trainables.{one}" for one in of_trainables.split()}


def violations(texts: Mapping[str, str]) -> list[str]:
    """Imports that the tables do not allow, each as "file imports module"."""
    return [
        f"{module} imports {one}"
        for module, imported in arrows(texts).items()
        for one in sorted(imported)
        if one not in PACKAGES
        and module not in PACKAGES
        and folder_of(one) != folder_of(module)
        and folder_of(one) not in allowed(folder_of(module))
    ]


def is_in(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)


def imported_packages(source: str) -> set[str]:
    """Top-level packages that a file imports anywhere: at its head, in a function, for types, or by name."""
    packages: set[str] = set()
    for node in imports_and_calls(source):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            packages.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                packages.add(node.args[0].value.partition(".")[0])
    return packages


def loaded_after(code: str, packages: tuple[str, ...], folder: Path = ROOT) -> dict[str, list[str]]:
    """Label -> those of the packages that a fresh process has loaded where `code` calls report(label)."""
    script = (
        "import json, sys\nloaded = {}\n"
        f"def report(label): loaded[label] = sorted(set({packages!r}) & set(sys.modules))\n"
        f"{code}\nprint(json.dumps(loaded))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def import_lines(modules: list[str]) -> str:
    return "\n".join(f"import {module}; report({module!r})" for module in modules)


def test_folders_import_only_what_the_tables_allow() -> None:
    assert violations(sources()) == []
    folders = {folder_of(module_of(path)) for path in sources()} - set(PACKAGES)
    assert folders == {f"trainables.{name}" for name in TRAINABLES} | {f"orchestrator.{name}" for name in ORCHESTRATOR}


def test_there_is_no_circle_between_files_nor_between_folders() -> None:
    between_files = arrows(sources())
    levels(between_files)
    heights = levels({folder: below - set(PACKAGES) for folder, below in folder_arrows(between_files).items()})
    assert heights["orchestrator.cli"] == max(heights.values())


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("trainables/config/keys.py", "from orchestrator.spec.loader import load_spec"),
        ("trainables/data/decoding.py", "from trainables.models import networks"),
        ("trainables/models/losses.py", "def f():\n    import trainables.data.batches"),
        ("orchestrator/cluster/capacity.py", "if TYPE_CHECKING:\n    from orchestrator.execution.driver import Driver"),
        ("orchestrator/cluster/connection.py", "from orchestrator.tracking.client import CREDENTIALS"),
        ("orchestrator/tracking/run_sync.py", "from orchestrator.reporting.report import write_report"),
        ("orchestrator/reporting/report.py", "from orchestrator.terminal import progress"),
        ("orchestrator/execution/sweep.py", "from orchestrator.commands.run import run"),
        ("orchestrator/scheduling/stage_queue.py", "from orchestrator.execution.driver import Driver"),
    ],
)
def test_a_planted_import_is_seen(file: str, line: str) -> None:
    texts = sources()
    assert len(violations(texts | {file: f"{texts[file]}\n{line}\n"})) == 1


def test_a_planted_circle_is_seen() -> None:
    texts = sources()
    file = "trainables/config/trial.py"
    with pytest.raises(CycleError):
        levels(arrows(texts | {file: f"{texts[file]}\nfrom trainables.config import keys\n"}))


@pytest.mark.parametrize(("package", "places"), [("ray", RAY), ("mlflow", MLFLOW)])
def test_ray_and_mlflow_are_imported_only_where_allowed(package: str, places: tuple[str, ...]) -> None:
    users = {path for path, text in sources().items() if package in imported_packages(text)}
    assert users
    assert [path for path in sorted(users) if not is_in(path, places)] == []


def test_every_init_of_a_folder_is_empty() -> None:
    packages = {f"{package}/__init__.py" for package in PACKAGES}
    assert {path for path, text in sources().items() if path.endswith("__init__.py") and text} == packages


def test_public_names_are_imported_on_first_use() -> None:
    code = "import trainables; report('package'); from trainables import load_masks, load_sparse_model; report('names')"
    assert loaded_after(code, ("torch", "numpy")) == {"package": [], "names": ["numpy", "torch"]}


def test_the_package_and_its_public_names_are_light() -> None:
    code = "import orchestrator; report('package'); orchestrator.load; orchestrator.run; report('names')"
    packages = ("numpy", "torch", "ray", "mlflow", "pandas", "pydantic", "rich")
    loaded = loaded_after(code, packages)
    assert loaded["package"] == []
    assert set(loaded["names"]) <= {"pydantic", "rich"}


def test_other_names_are_not_public() -> None:
    with pytest.raises(AttributeError, match="module 'trainables' has no attribute 'load_model'"):
        getattr(trainables, "load_model")  # noqa: B009 - mypy knows no attribute


def test_importing_trainables_loads_nothing_heavy() -> None:
    paths = [path for path in sources() if path.startswith("trainables/") and not is_in(path, MLFLOW)]
    light = [path for path in paths if not is_in(path, TORCH) or path in WITHOUT_TORCH]
    others = [path for path in paths if path not in light]
    assert {"trainables/trial/runner.py", "trainables/data/batches.py", "trainables/export/sparse_model.py"} <= set(others)
    loaded = loaded_after(import_lines([module_of(path) for path in light + others]), (*HEAVY, "torch"))
    for path in light:
        assert loaded[module_of(path)] == [], f"{path} or one before it in {light}"
    for path in others:
        assert set(loaded[module_of(path)]) <= {"torch"}, f"{path} or one before it in {others}"


@pytest.mark.parametrize("module", ["cli", "planning.plan", "spec.loader", "storage.layout", "storage.local"])
def test_commands_start_without_heavy_packages(module: str) -> None:
    packages = ("torch", "ray", "mlflow", "pyarrow", "sklearn", "matplotlib", "pandas")
    assert loaded_after(f"import orchestrator.{module}; report('here')", packages) == {"here": []}


def test_status_imports_no_table_of_methods() -> None:
    tables = ("trainables.config.methods", "pydantic")
    assert loaded_after("import orchestrator.terminal.status; report('here')", tables) == {"here": []}


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
    loaded = loaded_after(import_lines(["planted.clean", "planted.dirty"]), ("fake_heavy",), tmp_path)
    assert loaded == {"planted.clean": [], "planted.dirty": ["fake_heavy"]}


def test_the_driver_of_a_sweep_does_without_torch() -> None:
    """It names the stage that workers run, and carries their settings; importing PyTorch would take it seconds."""
    assert loaded_after(
        "import orchestrator.execution.sweep, trainables.worker.trainable; report('sweep')", (*HEAVY, "torch")
    ) == {"sweep": []}


if __name__ == "__main__":
    graph = {folder: below - set(PACKAGES) for folder, below in folder_arrows(arrows(sources())).items()}
    heights = levels(graph)
    for folder in sorted(heights, key=lambda one: (heights[one], one)):
        print(f"{heights[folder]:2}  {folder}: {', '.join(sorted(graph.get(folder, ())))}")
    print(f"{len(heights)} folders, {sum(map(len, graph.values()))} arrows, {1 + max(heights.values())} levels, no circle")
