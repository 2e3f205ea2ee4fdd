"""Imports of the user's modules, from exactly the bytes that were hashed; and of the copies that travel with MLflow models."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from trainables.custom.references import module_and_function, sha256
from trainables.errors import ConfigError

PACKAGE = __name__.partition(".")[0]  # trainables, or the name of the copy that travels with a model
COPIES = "own_"  # what the names of modules begin with that hold copies of users' files

_sources: dict[str, bytes] = {}  # module -> the text that was executed; a worker is reused from stage to stage


def load_function(reference: str) -> Callable[..., Any]:
    """The function, from its module as `CustomFiles.import_modules` imported it."""
    module, function = module_and_function(reference)
    loaded: Callable[..., Any] = getattr(sys.modules[module], function)
    return loaded


def source_of(reference: str) -> bytes:
    """The content of the file that a function was imported from."""
    return _sources[module_and_function(reference)[0]]


def is_from_user(module: str) -> bool:
    """Whether a module was imported from a file that a sweep names."""
    return module in _sources


def is_imported(module: str, digest: str) -> bool:
    """Whether the module was imported from a file with this SHA-256."""
    return module in _sources and sha256(_sources[module]) == digest


def import_source(key: str, module: str, file: Path, source: bytes) -> None:
    """Imports a module from exactly these bytes: the import system might run a cached compilation of an older version.

    Args:
        key: of the sweep file, for messages.

    Raises:
        ConfigError: another module has this name, or the source cannot be executed.
    """
    present = sys.modules.get(module)
    if present is not None and module not in _sources and not _is_from(present, file):
        raise ConfigError(f"{key}: {file} must not have the name of another module, got {module!r}", "rename the file")
    parent, _, last = module.rpartition(".")
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None
    imported = importlib.util.module_from_spec(spec)
    try:
        package = importlib.import_module(parent) if parent else None
        sys.modules[module] = imported
        exec(compile(source.decode(), str(file), "exec"), imported.__dict__)
    except Exception as error:
        sys.modules.pop(module, None)
        _sources.pop(module, None)
        raise ConfigError(f"{key}: {file} must be importable, got {type(error).__name__}: {error}", "correct it") from error
    if package is not None:
        setattr(package, last, imported)
    _sources[module] = source


def require_function(key: str, reference: str) -> None:
    """Raises ConfigError unless the imported module has the function of the reference."""
    name, function = module_and_function(reference)
    module = sys.modules[name]
    if not callable(getattr(module, function, None)):
        functions = [attribute for attribute, value in vars(module).items() if _is_defined_in(name, value)]
        raise ConfigError(
            f"{key}: {reference} must be a function, got none of that name in {module.__file__}",
            f"there are {', '.join(functions) or 'none'}",
        )


def bundled_function(reference: str, source_sha256: str) -> Callable[..., Any]:
    """The function of a saved model's network: from the copy that travels with an MLflow model, else from the user's module.

    Raises:
        ValueError: the module cannot be imported, or has no such function.
    """
    name, function = module_and_function(reference)
    bundled = f"{PACKAGE}.{bundled_name(source_sha256)}"
    try:
        module = importlib.import_module(bundled)
    except ModuleNotFoundError as error:
        if error.name != bundled:
            raise
        module = _installed_module(name, reference, source_sha256)
    if not hasattr(module, function):
        raise ValueError(f"the model's network is {reference}, and {module.__file__} has no {function!r}")
    loaded: Callable[..., Any] = getattr(module, function)
    return loaded


def bundle(source: bytes) -> None:
    """Imports the copy of a user's file that a trial has kept, for `bundled_function`.

    Raises:
        ValueError: it cannot be executed.
    """
    name = f"{PACKAGE}.{bundled_name(sha256(source))}"
    if name in sys.modules:
        return
    module = ModuleType(name)
    sys.modules[name] = module  # dataclasses look it up while it is executed
    module.__file__ = f"{name}.py"
    try:
        exec(compile(source.decode(), module.__file__, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"its file must be importable, got {type(error).__name__}: {error}") from error


def bundled_name(source_sha256: str) -> str:
    """Name of the module that holds a copy of the user's file; models of several versions of it load in one process."""
    return f"{COPIES}{source_sha256[:16]}"


def _installed_module(name: str, reference: str, source_sha256: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"the model's network is {reference} (source file SHA-256 {source_sha256}), and module {name!r} cannot be "
            f"imported: {error}; put its folder on sys.path"
        ) from error
    if module.__file__ and sha256(_sources.get(name) or Path(module.__file__).read_bytes()) != source_sha256:
        warnings.warn(f"{module.__file__} is not the file that the model was trained with ({source_sha256})", stacklevel=3)
    return module


def _is_from(module: ModuleType, file: Path) -> bool:
    return Path(getattr(module, "__file__", None) or "").resolve() == file.resolve()


def _is_defined_in(module: str, value: Any) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module
