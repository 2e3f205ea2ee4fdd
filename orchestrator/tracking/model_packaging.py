"""A sparse model as an MLflow model that loads anywhere: its files, and the code that travels with them."""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainables.custom.imports import bundled_name
from trainables.custom.references import sha256
from trainables.custom.source_imports import imports_of
from trainables.records.file_names import MODEL

ARTIFACTS = "artifacts"  # where MLflow keeps the files that a model was given, within its folder
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # where the name to install is not the name to import


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseModelRecord:
    """What is uploaded for one trial: the model file, its shapes, params and tags.

    Attributes:
        file: named model.safetensors.zst.
        network: source of a custom network; empty for others.
    """

    name: str
    file: Path
    image_shape: tuple[int, ...]
    num_classes: int
    params: dict[str, str]
    tags: dict[str, str]
    network: str = ""


def write_served_model(folder: Path, record: SparseModelRecord, model: Any, run_id: str) -> None:
    """Writes an MLflow model into the folder, without the model file, which belongs into its `artifacts`."""
    from mlflow.models import Model

    shared = shared_files(model_code().package, record.image_shape, record.num_classes, record.network)
    for name, content in shared.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    details = {
        "artifact_path": model.artifact_location,
        "model_uuid": model.model_id,
        "model_id": model.model_id,
        "run_id": run_id,
        "model_size_bytes": shared.size_bytes + record.file.stat().st_size,
        "utc_time_created": str(datetime.now(UTC).replace(tzinfo=None)),
    }
    Model.from_dict(shared.description | details).save(folder / "MLmodel")


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedFiles:
    """What the MLflow models of all trials of one data set and one file of networks share.

    Attributes:
        files: relative path -> content, of all but MLmodel and the model file. Not kept on disk: a sweep may last longer
            than what lies in the folder for temporary files.
        description: content of MLmodel.
        size_bytes: of what MLflow counts besides the model file.
    """

    files: dict[str, bytes]
    description: dict[str, Any]
    size_bytes: int


@cache
def shared_files(package: str, image_shape: tuple[int, ...], num_classes: int, network: str = "") -> SharedFiles:
    """The shared files, made by MLflow once per process, since that takes much longer than to copy them.

    Args:
        package: of `model_code()`.
        network: source of a custom network, which travels along.
    """
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    code = with_network_source(model_code(), network) if network else model_code()
    float32 = np.dtype("float32")
    with tempfile.TemporaryDirectory(prefix="drive-sweep-model-") as scratch:
        served, folder = Path(scratch, "served_model.py"), Path(scratch, "model")
        served.write_text(code.served)
        Path(scratch, MODEL).write_bytes(b"")
        for name, text in code.modules.items():
            file = Path(scratch, code.package, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        pyfunc.save_model(
            path=str(folder),
            python_model=str(served),
            artifacts={"model": str(Path(scratch, MODEL))},
            code_paths=[str(Path(scratch, code.package))],
            signature=ModelSignature(
                inputs=Schema([TensorSpec(float32, (-1, *image_shape))]),
                outputs=Schema([TensorSpec(float32, (-1, num_classes))]),
            ),
            pip_requirements=list(code.requirements),
        )
        description = Model.load(str(folder)).to_dict()
        files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    del files["MLmodel"], files[f"{ARTIFACTS}/{MODEL}"]
    return SharedFiles(files=files, description=description, size_bytes=description["model_size_bytes"])


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCode:
    """The code that travels with a model.

    Attributes:
        package: its name, made from the content, so that models of several versions load in one process and none of them
            takes the place of `trainables`.
        modules: place in the package -> text.
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

    return packaged(Path(str(trainables.__file__)).parent, "trainables.export.mlflow_model")


def packaged(folder: Path, entry: str) -> ModelCode:
    """A module with all that it imports from its own package, which lies in `folder`, at any depth.

    Args:
        entry: its name with the package's; it is not part of the package that travels.
    """
    top = entry.partition(".")[0]
    texts: dict[str, str] = {}
    installed = {"mlflow"}
    missing = {_file_of(entry, folder)}
    while missing:
        file = missing.pop()
        texts[file] = (folder / file).read_text()
        for imported in _imports(texts[file], top):
            if imported.partition(".")[0] == top:
                missing |= {_file_of(imported, folder), *_packages_above(_file_of(imported, folder))} - texts.keys()
            elif imported.partition(".")[0] not in sys.stdlib_module_names:
                installed.add(imported.partition(".")[0])
    texts["__init__.py"] = ""  # the public names of the whole are not those of a part
    digest = hashlib.sha256("".join(f"{name}\0{texts[name]}\0" for name in sorted(texts)).encode()).hexdigest()
    package = f"drive_sparse_{digest[:8]}"
    moved = {name: re.sub(rf"(?m)^(\s*(?:from|import)) {top}\b", rf"\1 {package}", text) for name, text in texts.items()}
    served = moved.pop(_file_of(entry, folder))
    requirements = (requirement for name in sorted(installed) if (requirement := _installed(name)))
    return ModelCode(package=package, modules=moved, served=served, requirements=tuple(requirements))


def _file_of(imported: str, folder: Path) -> str:
    """The file below the package's folder that holds an imported name: a module's own, or that of the module it is in."""
    parts = imported.split(".")[1:]
    for length in range(len(parts), 0, -1):
        inside = Path(*parts[:length])
        for file in (inside.with_suffix(".py"), inside / "__init__.py"):
            if (folder / file).is_file():
                return file.as_posix()
    return "__init__.py"


def _packages_above(file: str) -> list[str]:
    return [(folder / "__init__.py").as_posix() for folder in Path(file).parents]


def with_network_source(code: ModelCode, network: str) -> ModelCode:
    """The code with a custom network in it, under names made from its content, so that versions of it load in one process."""
    digest = sha256(network.encode())
    package = f"{code.package}_{digest[:8]}"
    modules = {name: text.replace(code.package, package) for name, text in code.modules.items()}
    imported = {name.partition(".")[0] for name in _imports(network, "trainables")} - set(sys.stdlib_module_names)
    installed = {requirement for name in imported if (requirement := _installed(name))}
    return ModelCode(
        package=package,
        modules=modules | {f"{bundled_name(digest)}.py": network},
        served=code.served.replace(code.package, package),
        requirements=tuple(sorted({*code.requirements, *installed})),
    )


def _imports(text: str, top: str) -> list[str]:
    """Names of the modules that a file imports anywhere; what is imported from a module of the package `top`, with its name."""
    imported = []
    for module, names in imports_of(text):
        if names and module.partition(".")[0] == top:
            imported += [f"{module}.{name}" for name in names]
        elif module:
            imported.append(module)
    return imported


def _installed(name: str) -> str | None:
    """The requirement that pins an imported module's distribution; local versions such as 2.15.0+cpu are on no index."""
    distribution = DISTRIBUTIONS.get(name, name)
    try:
        return f"{distribution}=={version(distribution).partition('+')[0]}"
    except PackageNotFoundError:
        return None
