"""A user's own functions (network, data set, loss): the file of each, its hash, and its import in a worker.

A reference is "module:MODULE.FUNCTION". MODULE is one Python file, looked up below `modules_path`, else in an installed
package. The file's SHA-256 is part of the keys of trials that use it; the driver finds and hashes files and imports none.
What a file imports from other files of the user is in no key.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError

PREFIX = "module:"
REFERENCE = re.compile(r"module:[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
WEIGHTS = "initial_weights"
PACKAGE = __name__.partition(".")[0]  # trainables, or what it is called where it travels with a model
# Begins a path below the folder that a job brings to every node; where that lies differs from node to node.
SHIPPED_PREFIX = "shipped:"
ONLY_IN_JOBS = (
    "is a file that the sweep was submitted with, which only its jobs on the cluster have; "
    "resume it there, with --address http://HEAD:8265, or run the sweep file here"
)
RESERVED = {*sys.stdlib_module_names, "__main__", "orchestrator", "trainables"}

_sources: dict[str, bytes] = {}  # module -> the text that was executed; a worker is reused from stage to stage


def is_custom(name: str) -> bool:
    """Whether a network, data set or loss is a function of the user's."""
    return name.startswith(PREFIX)


def custom_references(config: TrialConfig) -> dict[str, str]:
    """Key of the sweep file -> reference (or WEIGHTS), of everything that the trial takes from the user's own files."""
    parts = {"dataset": config.dataset.name, "model": config.model, "training.loss": config.training.loss}
    found = {place: name for place, name in parts.items() if is_custom(name)}
    return found | ({WEIGHTS: WEIGHTS} if config.initial_weights else {})


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomFiles:
    """The user's own files of a sweep: where they lie on a node, and what the plan found in them.

    Attributes:
        modules_path: folder where modules are looked up first.
        initial_weights: file of the weights that trials start from.
        digests: reference or WEIGHTS -> SHA-256 of the file.
    """

    modules_path: str = "."
    initial_weights: str | None = None
    digests: dict[str, str] = field(default_factory=dict)

    def digested(self, configs: Iterable[TrialConfig]) -> CustomFiles:
        """The same with the digests of all files that these trials use; imports nothing.

        Raises:
            ConfigError: there is no such file.
        """
        used = {name: place for config in configs for place, name in custom_references(config).items()}
        return replace(self, digests={name: self._digest(place, name) for name, place in used.items()})

    def _digest(self, place: str, name: str) -> str:
        if name != WEIGHTS:
            return sha256(source_file(place, name, self.modules_path).read_bytes())
        try:
            with open(local_path(str(self.initial_weights)), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise unreadable_weights(str(self.initial_weights), error) from error

    def used_by(self, config: TrialConfig) -> dict[str, str]:
        """Key of the sweep file -> SHA-256, of the files that decide this trial's numbers."""
        return {place: self.digests[name] for place, name in custom_references(config).items()}

    def missing(self, config: TrialConfig) -> str:
        """What this machine lacks of the trial's own files; empty if they are all there."""
        for place, name in custom_references(config).items():
            if name == WEIGHTS and not os.access(local_path(str(self.initial_weights)), os.R_OK):
                return f"{WEIGHTS}: no file {self.initial_weights!r} that can be read"
            if name != WEIGHTS:
                try:
                    source_file(place, name, self.modules_path)
                except ConfigError as error:
                    return str(error)
        return ""

    def activate(self, config: TrialConfig) -> None:
        """Imports the trial's own modules, so that `load_function` finds their functions; a worker calls it before every stage.

        Raises:
            ConfigError: a file is not there, is not the one that was planned with, or cannot be imported; or it has no such
                function.
        """
        for place, reference in custom_references(config).items():
            if reference != WEIGHTS:
                self._import(place, reference)

    def _import(self, place: str, reference: str) -> None:
        module, function = module_and_function(reference)
        planned = self.digests[reference]
        if module not in _sources or sha256(_sources[module]) != planned:
            file = source_file(place, reference, self.modules_path)
            source = file.read_bytes()
            if sha256(source) != planned:
                raise ConfigError(
                    f"{place}: {file} must be the file that the sweep was planned with (SHA-256 {planned[:12]}), got "
                    f"{sha256(source)[:12]}; run the sweep again, or give this machine the same file"
                )
            folder = local_path(self.modules_path)
            if folder not in sys.path:
                sys.path.insert(0, folder)
            _execute(place, module, file, source)
            _sources[module] = source
        if not callable(getattr(sys.modules[module], function, None)):
            there = ", ".join(name for name, value in vars(sys.modules[module]).items() if _is_defined_in(module, value))
            raise ConfigError(
                f"{place}: {reference} must be a function, got none of that name in {sys.modules[module].__file__}; "
                f"there are {there or 'none'}"
            )


NO_CUSTOM_FILES = CustomFiles()


def local_path(path: str) -> str:
    """The path as it is on this node: what was shipped lies beside the code that runs here."""
    if not path.startswith(SHIPPED_PREFIX):
        return path
    return str(Path(str(sys.modules[PACKAGE].__file__)).absolute().parent.parent / path.removeprefix(SHIPPED_PREFIX))


def is_only_in_jobs(path: str) -> bool:
    """Whether a path is that of a shipped file on a machine to which no job brought any."""
    return path.startswith(SHIPPED_PREFIX) and not Path(local_path(path)).exists()


def load_function(reference: str) -> Callable[..., Any]:
    """The function, from its module as `CustomFiles.activate` imported it."""
    module, function = module_and_function(reference)
    found: Callable[..., Any] = getattr(sys.modules[module], function)
    return found


def source_of(reference: str) -> bytes:
    """The content of the file that a function was imported from."""
    return _sources[module_and_function(reference)[0]]


def source_file(place: str, reference: str, modules_path: str) -> Path:
    """The Python file of a reference; found by its name, so nothing is imported.

    Raises:
        ConfigError: there is none, or its name is that of a module of Python's own.
    """
    module, function = module_and_function(reference)
    first, *others = module.split(".")
    if first in RESERVED:
        raise ConfigError(f"{place}: {reference} must not have the name of another module, got {first!r}; rename the file")
    file = Path(local_path(modules_path), f"{module.replace('.', '/')}.py")
    if file.is_file():
        return file
    installed = importlib.util.find_spec(first)  # of a name without dots it imports nothing
    folders = (installed and installed.submodule_search_locations) or ()
    elsewhere = [Path(folder, f"{'/'.join(others)}.py") for folder in folders if others]
    if installed and installed.origin and not folders:
        elsewhere = [Path(installed.origin)]
    for candidate in elsewhere:
        if candidate.is_file() and candidate.suffix == ".py":
            return candidate
    if file.with_suffix("").is_dir() or any(path.with_suffix("").is_dir() for path in elsewhere) or (folders and not others):
        got = f"a package; name the file in it: {module}.FILE.{function}"
    else:
        got = "no such file; correct it, or set modules_path to its folder"
    if is_only_in_jobs(modules_path):
        raise ConfigError(f"{place}: {reference} {ONLY_IN_JOBS}")
    rule = f"be a function of a Python file in {modules_path} or in an installed package"
    raise ConfigError(f"{place}: {reference} must {rule}, got {got}")


def bundled_function(reference: str, source_sha256: str) -> Callable[..., Any]:
    """The function of a saved model's network: from the copy that travels with an MLflow model, else from the user's module.

    Raises:
        ValueError: the module cannot be imported, or has no such function.
    """
    module, function = module_and_function(reference)
    carried = f"{PACKAGE}.{bundled_name(source_sha256)}"
    try:
        found = importlib.import_module(carried)
    except ModuleNotFoundError as error:
        if error.name != carried:
            raise
        found = _by_name(module, reference, source_sha256)
    if not hasattr(found, function):
        raise ValueError(f"the model's network is {reference}, and {found.__file__} has no {function!r}")
    loaded: Callable[..., Any] = getattr(found, function)
    return loaded


def bundled_name(source_sha256: str) -> str:
    """Name of the module that holds a copy of the user's file; models of several versions of it load in one process."""
    return f"own_{source_sha256[:16]}"


def _by_name(module: str, reference: str, source_sha256: str) -> ModuleType:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the model's network is {reference} (source file SHA-256 {source_sha256}), and module {module!r} cannot be "
            f"imported: {error}; put its folder on sys.path"
        ) from error
    if found.__file__ and sha256(_sources.get(module) or Path(found.__file__).read_bytes()) != source_sha256:
        warnings.warn(f"{found.__file__} is not the file that the model was trained with ({source_sha256})", stacklevel=3)
    return found


def module_and_function(reference: str) -> tuple[str, str]:
    """Module and function of a reference."""
    module, _, function = reference.removeprefix(PREFIX).rpartition(".")
    return module, function


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def unreadable_weights(file: str, error: OSError) -> ConfigError:
    if is_only_in_jobs(file):
        return ConfigError(f"initial_weights: {file.removeprefix(SHIPPED_PREFIX)} {ONLY_IN_JOBS}")
    return ConfigError(f"initial_weights must be a file that can be read, got {file!r}: {error.strerror}; correct the path")


def _execute(place: str, module: str, file: Path, source: bytes) -> None:
    """Makes a module of exactly these bytes: the import system might run a cached compilation of an older version."""
    there = sys.modules.get(module)
    if (
        there is not None
        and module not in _sources
        and Path(getattr(there, "__file__", None) or "").resolve() != file.resolve()
    ):
        raise ConfigError(f"{place}: {file} must not have the name of another module, got {module!r}; rename the file")
    parent, _, last = module.rpartition(".")
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    try:
        package = importlib.import_module(parent) if parent else None
        sys.modules[module] = made
        exec(compile(source.decode(), str(file), "exec"), made.__dict__)
    except Exception as error:
        sys.modules.pop(module, None)
        _sources.pop(module, None)
        raise ConfigError(f"{place}: {file} must be importable, got {type(error).__name__}: {error}; correct it") from error
    if package is not None:
        setattr(package, last, made)


def _is_defined_in(module: str, value: Any) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module
