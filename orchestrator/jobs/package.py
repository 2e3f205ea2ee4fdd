"""The package that a job takes to every node of a cluster: this code, the sweep file, the custom files.

    orchestrator/ trainables/ REVISION    this version
    sweep.yaml                            as written; none for a preset
    own/                                  custom Python files, as below modules_path
    weights/                              the file of initial_weights
    timings/                              the timing table

Data, results and everything else in the user's folder stay where they are. Knows no Ray.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orchestrator.command_line import command
from orchestrator.errors import UserError
from orchestrator.process.import_paths import ROOT
from orchestrator.spec.grid import representative_trials
from orchestrator.spec.schema import SweepSpec
from orchestrator.version import SHIPPED_REVISION, source_revision
from trainables.custom.files import RESERVED, SHIPPED_PREFIX, source_file
from trainables.custom.references import DATA_FILES, TIMINGS, WEIGHTS, custom_references, module_and_function
from trainables.custom.source_imports import imports_of
from trainables.errors import ConfigError

CODE = ("orchestrator", "trainables")
CUSTOM_FOLDER = "own"
DATA_FOLDERS = {WEIGHTS: "weights", TIMINGS: "timings"}  # key of the sweep file -> folder of its file
MAX_BYTES = 400 * 2**20  # Ray takes packages below 512 MiB


@contextmanager
def package(texts: Mapping[str, str], custom_files: Mapping[str, str]) -> Iterator[Path]:
    """A temporary folder with this code, files of these texts, and copies of the custom files.

    Args:
        texts: path in the package -> content.
        custom_files: path in the package -> file on this machine.

    Raises:
        UserError: a custom file is missing, or they are too large to be sent.
    """
    require_files(custom_files)
    size = sum(Path(file).stat().st_size for file in custom_files.values())
    if size > MAX_BYTES:
        raise UserError(
            f"initial_weights and custom modules must be at most {MAX_BYTES >> 20} MiB to be sent along, got {size >> 20} MiB",
            "put them where all nodes see them, and give that path",
            code="files-too-large",
        )
    with tempfile.TemporaryDirectory(prefix="drive-sweep-job-") as scratch:
        folder = Path(scratch)
        for name in CODE:
            shutil.copytree(ROOT.resolve() / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        for name, text in (*texts.items(), (SHIPPED_REVISION, source_revision())):
            (folder / name).write_text(text)
        for path, file in custom_files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        yield folder


def require_shared_stores(spec: SweepSpec) -> None:
    """Raises UserError for a storage, tracking store or data folder that the nodes of a cluster cannot share."""
    if "://" not in spec.storage and not spec.storage.startswith(("/", "~")):
        raise UserError(
            f"storage: must be one that all nodes of the cluster see, got {spec.storage!r}",
            "give --storage with a URI such as s3://BUCKET/PREFIX, or the absolute path of a shared folder",
            code="storage-not-shared",
        )
    uri = spec.tracking.uri
    if uri is None or uri.startswith("sqlite:"):
        raise UserError(
            f"tracking.uri: must be a server that the cluster reaches, got {uri or 'none'}",
            "give --tracking-uri http://HOST:5000",
            code="tracking-not-shared",
        )
    root = spec.dataset.root
    if root is not None and not root.startswith(("/", "~")):
        raise UserError(
            f"dataset.root: must be an absolute path on the nodes of the cluster, got {root!r}",
            "correct it",
            code="data-not-shared",
        )


def require_files(custom_files: Mapping[str, str]) -> None:
    """Raises UserError if one of the files is missing."""
    missing = [file for file in custom_files.values() if not Path(file).is_file()]
    if missing:
        raise UserError(
            f"the custom file {missing[0]} must be on this machine to be sent along, got no such file",
            f"`{command('submit', 'FILE')}` from where it is continues the sweep",
            code="file-not-found",
        )


def collect_custom_files(spec: SweepSpec) -> dict[str, str]:
    """Path in the package -> file on this machine: the sweep's modules, their imports from modules_path, its data files.

    Data files that are not on this machine stay a path, which the nodes must see.

    Raises:
        UserError: a module of the sweep is neither in modules_path nor installed.
    """
    custom_files = spec.custom_files()
    package_files: dict[str, str] = {}
    root = Path(custom_files.modules_path)
    for config in representative_trials(spec):
        for key, reference in custom_references(config).items():
            if reference in DATA_FILES:
                file = Path(custom_files.data_file(reference))
                if file.is_file():
                    package_files[f"{DATA_FOLDERS[reference]}/{file.name}"] = str(file)
                continue
            try:
                file = source_file(key, reference, custom_files.modules_path)
            except ConfigError as error:
                raise UserError(error.message, error.hint, code="file-not-found") from error
            module, _ = module_and_function(reference)
            if file == root.joinpath(*module.split(".")).with_suffix(".py"):  # else it belongs to an installed package
                for source in _with_imports(file, root):
                    package_files[f"{CUSTOM_FOLDER}/{source.relative_to(root)}"] = str(source)
    return package_files


def shipped_settings(custom_files: Mapping[str, str]) -> list[str]:
    """Options of `run` that name the custom files by their paths in the package, instead of those on this machine."""
    files = [
        f"{key}={json.dumps(SHIPPED_PREFIX + path, ensure_ascii=False)}"
        for path in custom_files
        for key, folder in DATA_FOLDERS.items()
        if path.startswith(f"{folder}/")
    ]
    modules = [f"modules_path={SHIPPED_PREFIX}{CUSTOM_FOLDER}"] if len(custom_files) > len(files) else []
    return modules + files


def _with_imports(file: Path, root: Path) -> set[Path]:
    """The file and everything below `root` that it imports, by the sources; imports nothing."""
    sources: set[Path] = set()
    pending = {file, *_packages_of(file, root)}
    while pending:
        source = pending.pop()
        sources.add(source)
        try:
            imported = _imported_names(source, root)
        except (SyntaxError, ValueError) as error:
            raise UserError(f"{source}: must be Python, got {error}", "correct it", code="code-invalid") from error
        pending |= {file for name in imported for file in _files_of(name, root)} - sources
    return sources


def _imported_names(source: Path, root: Path) -> list[str]:
    """Dotted names, from `root`, that a source imports: modules, and names that may be modules."""
    imports = imports_of(source.read_bytes(), source.relative_to(root).parts[:-1])
    return [f"{module}.{name}".strip(".") for module, names in imports for name in ("", *names)]


def _files_of(name: str, root: Path) -> Iterator[Path]:
    """The files that an import of the name executes."""
    path = root.joinpath(*name.split("."))
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if name and name.split(".")[0] not in RESERVED and file.is_file():
            yield file
            yield from _packages_of(file, root)


def _packages_of(file: Path, root: Path) -> Iterator[Path]:
    for folder in file.relative_to(root).parents:
        if (root / folder / "__init__.py").is_file() and folder != Path():
            yield root / folder / "__init__.py"
