"""What a job brings to every node of a cluster: this code, the sweep file, the user's own files.

    orchestrator/ trainables/ REVISION    this version
    sweep.yaml                            as written; not for the sweeps that come with the program
    own/                                  the user's Python files, as below modules_path
    weights/                              the file of initial_weights

Data, results and all else in the user's folder stay here. Knows no Ray.
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
from orchestrator.spec.grid import expand
from orchestrator.spec.schema import SweepSpec
from orchestrator.version import SHIPPED_REVISION, source_revision
from trainables.custom.files import RESERVED, SHIPPED_PREFIX, source_file
from trainables.custom.references import WEIGHTS, custom_references, module_and_function
from trainables.custom.source_imports import imports_of
from trainables.errors import ConfigError

CODE = ("orchestrator", "trainables")
CUSTOM_FOLDER = "own"
MAX_BYTES = 400 * 2**20  # Ray takes packages below 512 MiB


@contextmanager
def package(texts: Mapping[str, str], own: Mapping[str, str]) -> Iterator[Path]:
    """A folder with this code, files of these texts, and copies of the user's own files by their place in it.

    Raises:
        UserError: an own file is not here, or they are too large to be sent.
    """
    require_files(own)
    size = sum(Path(file).stat().st_size for file in own.values())
    if size > MAX_BYTES:
        raise UserError(
            f"initial_weights and own modules must be at most {MAX_BYTES >> 20} MiB to be sent along, got {size >> 20} MiB; "
            "put them where all nodes see them, and give that path"
        )
    with tempfile.TemporaryDirectory(prefix="drive-sweep-job-") as scratch:
        folder = Path(scratch)
        for name in CODE:
            shutil.copytree(ROOT.resolve() / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        for name, text in (*texts.items(), (SHIPPED_REVISION, source_revision())):
            (folder / name).write_text(text)
        for place, file in own.items():
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        yield folder


def require_files(own: Mapping[str, str]) -> None:
    missing = [file for file in own.values() if not Path(file).is_file()]
    if missing:
        raise UserError(
            f"the sweep's own file {missing[0]} must be on this machine to be sent along, got no such file; "
            f"`{command('submit', 'FILE')}` from where it is continues the sweep"
        )


def collect_custom_files(spec: SweepSpec) -> dict[str, str]:
    """Place in the package -> file here: the modules that the sweep names, what they import from modules_path, its weights.

    Weights that are not on this machine stay a path, which the nodes must see.

    Raises:
        UserError: a module that the sweep names is neither here nor installed.
    """
    custom_files = spec.custom_files()
    places: dict[str, str] = {}
    root = Path(custom_files.modules_path)
    for config in expand(spec):
        for key, reference in custom_references(config).items():
            if reference == WEIGHTS:
                file = Path(str(custom_files.initial_weights))
                places |= {f"weights/{file.name}": str(file)} if file.is_file() else {}
                continue
            try:
                file = source_file(key, reference, custom_files.modules_path)
            except ConfigError as error:
                raise UserError(str(error)) from error
            module, _ = module_and_function(reference)
            if file == root.joinpath(*module.split(".")).with_suffix(".py"):  # else it is of an installed package
                places |= {f"{CUSTOM_FOLDER}/{found.relative_to(root)}": str(found) for found in _with_imports(file, root)}
    return places


def shipped_settings(own: Mapping[str, str]) -> list[str]:
    """Options of `run` that name the places of own files in the package, in place of those on this machine."""
    weights = [
        f"initial_weights={json.dumps(SHIPPED_PREFIX + place, ensure_ascii=False)}"
        for place in own
        if place.startswith("weights/")
    ]
    return ([f"modules_path={SHIPPED_PREFIX}{CUSTOM_FOLDER}"] if len(own) > len(weights) else []) + weights


def _with_imports(file: Path, root: Path) -> set[Path]:
    """The file and all that it imports from files below `root`, read from the sources; nothing is imported."""
    found: set[Path] = set()
    left = {file, *_packages_of(file, root)}
    while left:
        source = left.pop()
        found.add(source)
        try:
            imported = _imported_names(source, root)
        except (SyntaxError, ValueError) as error:
            raise UserError(f"{source}: must be Python, got {error}", "correct it") from error
        left |= {file for name in imported for file in _files_of(name, root)} - found
    return found


def _imported_names(source: Path, root: Path) -> list[str]:
    """Dotted names, from `root`, of what a source may import: modules, and names that may be modules."""
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
