"""A trial's sparse model -> an MLflow logged model, at most once, whenever the upload is cut off.

MLflow has no exclusive creation, but a model exists as "pending" from its first call to its last. So a model found ready was
uploaded whole, and one found in any other state is the rest of an upload that died. No fluent API: it would need a
global tracking URI and an active run. Read by: mirror.py.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainables.records import MODEL

MODEL_TYPE = "sparse-classifier"
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # where the name to install is not the name to import


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseModelRecord:
    """What is uploaded for one trial: the model file, its shapes, and how it is found again."""

    name: str
    content: bytes
    image_shape: tuple[int, ...]
    num_classes: int
    params: dict[str, str]
    tags: dict[str, str]


def find_model(client: Any, experiment_id: str, trial_key: str, sha256: str, run_id: str) -> Any | None:
    """The ready model of these weights: the run's own, else the oldest one of the experiment.

    What an upload for this run left unfinished is deleted.
    """
    wanted = f"tags.`drive.trial_key` = '{trial_key}' AND tags.`drive.model_sha256` = '{sha256}'"
    ready = []
    for model in client.search_logged_models([experiment_id], filter_string=wanted):
        if str(model.status) == "READY":
            ready.append(model)
        elif model.source_run_id == run_id:
            client.delete_logged_model(model.model_id)
    return min(ready, key=lambda model: (model.source_run_id != run_id, model.creation_timestamp), default=None)


def upload_model(client: Any, experiment_id: str, run_id: str, record: SparseModelRecord) -> Any:
    """The new logged model of a run, ready to be loaded."""
    model = client.create_logged_model(
        experiment_id=experiment_id,
        name=record.name,
        source_run_id=run_id,
        tags=record.tags,
        params=record.params,
        model_type=MODEL_TYPE,
    )
    with tempfile.TemporaryDirectory(prefix="drive-sweep-model-") as scratch:
        save_served_model(Path(scratch), record, model, run_id)
        client.log_model_artifacts(model.model_id, str(Path(scratch, "model")))
    return client.finalize_logged_model(model.model_id, "READY")


def save_served_model(scratch: Path, record: SparseModelRecord, model: Any, run_id: str) -> None:
    """Writes <scratch>/model, a whole MLflow model. Signature and requirements are given: inferring them takes 10 s."""
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    code = model_code()
    package = scratch / code.package
    package.mkdir()
    for name, text in code.modules.items():
        (package / name).write_text(text)
    (scratch / "served_model.py").write_text(code.served)
    (scratch / MODEL).write_bytes(record.content)
    float32 = np.dtype("float32")
    pyfunc.save_model(
        path=str(scratch / "model"),
        mlflow_model=Model(
            artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id, model_id=model.model_id
        ),
        python_model=str(scratch / "served_model.py"),
        artifacts={"model": str(scratch / MODEL)},
        code_paths=[str(package)],
        signature=ModelSignature(
            inputs=Schema([TensorSpec(float32, (-1, *record.image_shape))]),
            outputs=Schema([TensorSpec(float32, (-1, record.num_classes))]),
        ),
        pip_requirements=list(code.requirements),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCode:
    """The code that travels with a model.

    Attributes:
        package: its name, made from the content, so that models of several versions load in one process and none of them
            takes the place of `trainables`.
        modules: file name -> text of the package.
        served: text of served_model.py, importing from the package.
        requirements: what to install, at the versions that are installed here.
    """

    package: str
    modules: dict[str, str]
    served: str
    requirements: tuple[str, ...]


@cache
def model_code() -> ModelCode:
    """served_model.py and every module of `trainables` that it imports, directly or not."""
    import trainables

    assert trainables.__file__ is not None
    folder = Path(trainables.__file__).parent
    texts = {"__init__": ""}
    missing, installed = ["served_model"], {"mlflow"}
    while missing:
        name = missing.pop()
        texts[name] = (folder / f"{name}.py").read_text()
        for imported in _imports(texts[name]):
            top, _, rest = imported.partition(".")
            if top == "trainables":
                module = rest.partition(".")[0]
                missing += [module] if module and module not in texts else []
            elif top not in sys.stdlib_module_names:
                installed.add(top)
    digest = hashlib.sha256("".join(f"{name}\0{texts[name]}\0" for name in sorted(texts)).encode()).hexdigest()
    package = f"drive_sparse_{digest[:8]}"
    moved = {name: re.sub(r"(?m)^(\s*(?:from|import)) trainables\b", rf"\1 {package}", text) for name, text in texts.items()}
    served = moved.pop("served_model")
    requirements = (requirement for name in sorted(installed) if (requirement := _installed(name)))
    return ModelCode(
        package=package,
        modules={f"{name}.py": text for name, text in moved.items()},
        served=served,
        requirements=tuple(requirements),
    )


def _imports(text: str) -> list[str]:
    """Names of the modules that a file imports anywhere; `from trainables import x` counts as trainables.x."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "trainables":
            found += [f"trainables.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def _installed(name: str) -> str | None:
    """The requirement that pins an imported module's distribution; local versions such as 2.15.0+cpu are on no index."""
    distribution = DISTRIBUTIONS.get(name, name)
    try:
        return f"{distribution}=={version(distribution).partition('+')[0]}"
    except PackageNotFoundError:
        return None
