"""The custom files of a sweep: where they are on this machine, their digests, and the import of their modules in a worker.

The driver finds and hashes files and imports none.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainables.config.trial import TrialConfig
from trainables.custom.imports import PACKAGE, import_source, is_imported, require_function
from trainables.custom.references import DATA_FILES, TIMINGS, WEIGHTS, custom_references, module_and_function, sha256
from trainables.custom.timing_table import MEASURE, TimingTable, parse_timing_table
from trainables.custom.versions import NAME, declared_version
from trainables.errors import ConfigError, MissingFileError

# Prefix of a path below the folder that a job brings to every node; where that folder is differs from node to node.
SHIPPED_PREFIX = "shipped:"
ONLY_IN_JOBS = "is a file that the sweep was submitted with, which only its jobs on the cluster have"
ONLY_IN_JOBS_HINT = "resume it there, with --address http://HEAD:8265, or run the sweep file here"
RESERVED = {*sys.stdlib_module_names, "__main__", "orchestrator", "trainables"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomFiles:
    """The user's files of a sweep, with the digests that the sweep was planned with.

    Attributes:
        modules_path: folder where modules are looked up first.
        initial_weights: file of the weights that trials start from.
        timings: file of the timing table.
        digests: reference or one of DATA_FILES -> SHA-256 of the file.
        versions: reference -> the `__version__` of its file, which stands for the file in keys; of files that declare one.
    """

    modules_path: str = "."
    initial_weights: str | None = None
    timings: str | None = None
    digests: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def with_digests(self, configs: Iterable[TrialConfig]) -> CustomFiles:
        """The same with the digests and versions of all files that these trials use; imports nothing.

        Raises:
            ConfigError: there is no such file, or the timing table is invalid.
        """
        used = {reference: key for config in configs for key, reference in custom_references(config).items()}
        digests: dict[str, str] = {}
        versions: dict[str, str] = {}
        for reference, key in used.items():
            if reference == WEIGHTS:
                digests[reference] = self._digest_of_weights()
                continue
            if reference == TIMINGS:
                digests[reference] = sha256(content := self._timings_content())
                parse_timing_table(content)
                continue
            source = source_file(key, reference, self.modules_path).read_bytes()
            digests[reference] = sha256(source)
            if (version := declared_version(source)) is not None:
                versions[reference] = version
        return replace(self, digests=digests, versions=versions)

    def _digest_of_weights(self) -> str:
        try:
            with open(local_path(str(self.initial_weights)), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise unreadable_file(WEIGHTS, str(self.initial_weights), error) from error

    def _timings_content(self) -> bytes:
        if self.timings is None:
            raise ConfigError(
                "timings: must be given with target.latency, got none", f"{MEASURE}; then write timings: ./timings.json"
            )
        try:
            return Path(local_path(self.timings)).read_bytes()
        except OSError as error:
            raise unreadable_file(TIMINGS, self.timings, error) from error

    def timing_table(self) -> TimingTable:
        """The timing table that the sweep was planned with.

        Raises:
            ConfigError: the file is missing or another one, or no table.
        """
        content = self._timings_content()
        if sha256(content) != (planned := self.digests[TIMINGS]):
            raise ConfigError(
                f"timings: must be the file that the sweep was planned with (SHA-256 {planned[:12]}), got {self.timings!r} "
                f"with {sha256(content)[:12]}",
                "run the sweep again, or give this machine the same file",
            )
        return parse_timing_table(content)

    def data_file(self, reference: str) -> str:
        """The path of one of DATA_FILES."""
        return str({WEIGHTS: self.initial_weights, TIMINGS: self.timings}[reference])

    def digests_of(self, config: TrialConfig) -> dict[str, str]:
        """Key of the sweep file -> SHA-256, of the files that decide this trial's numbers."""
        return {key: self.digests[reference] for key, reference in custom_references(config).items()}

    def versions_of(self, config: TrialConfig) -> dict[str, str]:
        """Key of the sweep file -> `__version__`, of those among these files that declare one."""
        references = custom_references(config)
        return {key: self.versions[reference] for key, reference in references.items() if reference in self.versions}

    def identities_of(self, config: TrialConfig) -> dict[str, str]:
        """Key of the sweep file -> what stands for the file in keys: its version, or its SHA-256."""
        return {key: self.identity(reference) for key, reference in custom_references(config).items()}

    def identity(self, reference: str) -> str:
        """What stands for one file in keys."""
        version = self.versions.get(reference)
        return self.digests[reference] if version is None else f"{NAME} {version}"

    def missing(self, config: TrialConfig) -> MissingFileError | None:
        """The error for a file of the trial that is missing on this machine; None if all are there."""
        for key, reference in custom_references(config).items():
            if reference in DATA_FILES and not os.access(local_path(self.data_file(reference)), os.R_OK):
                return MissingFileError(f"{reference}: no file {self.data_file(reference)!r} that can be read")
            if reference not in DATA_FILES:
                try:
                    source_file(key, reference, self.modules_path)
                except ConfigError as error:
                    return MissingFileError(error.message, error.hint)
        return None

    def import_modules(self, config: TrialConfig) -> None:
        """Imports the trial's modules for `load_function`; a worker calls it before every stage.

        Raises:
            ConfigError: a file is missing, is not the one that was planned with, or cannot be imported; or it has no such
                function.
        """
        for key, reference in custom_references(config).items():
            if reference not in DATA_FILES:
                self._import(key, reference)

    def _import(self, key: str, reference: str) -> None:
        module, _ = module_and_function(reference)
        planned = self.digests[reference]
        if not is_imported(module, planned):
            file = source_file(key, reference, self.modules_path)
            source = file.read_bytes()
            if sha256(source) != planned:
                raise ConfigError(
                    f"{key}: {file} must be the file that the sweep was planned with (SHA-256 {planned[:12]}), got "
                    f"{sha256(source)[:12]}",
                    "run the sweep again, or give this machine the same file",
                )
            folder = local_path(self.modules_path)
            if folder not in sys.path:
                sys.path.insert(0, folder)
            import_source(key, module, file, source)
        require_function(key, reference)


NO_CUSTOM_FILES = CustomFiles()


def local_path(path: str) -> str:
    """The path on this node: shipped files lie beside the code that runs here."""
    if not path.startswith(SHIPPED_PREFIX):
        return path
    return str(Path(str(sys.modules[PACKAGE].__file__)).absolute().parent.parent / path.removeprefix(SHIPPED_PREFIX))


def is_only_in_jobs(path: str) -> bool:
    """Whether a path is that of a shipped file, on a machine that no job has shipped it to."""
    return path.startswith(SHIPPED_PREFIX) and not Path(local_path(path)).exists()


def source_file(key: str, reference: str, modules_path: str) -> Path:
    """The Python file of a reference, located by its name without importing it.

    Args:
        key: of the sweep file, for messages.

    Raises:
        ConfigError: there is none, or its name is that of a module of Python's own.
    """
    module, function = module_and_function(reference)
    if module.partition(".")[0] in RESERVED:
        raise ConfigError(
            f"{key}: {reference} must not have the name of another module, got {module.partition('.')[0]!r}", "rename the file"
        )
    file = Path(local_path(modules_path), f"{module.replace('.', '/')}.py")
    if file.is_file():
        return file
    candidates, is_package = _installed_files(module)
    for candidate in candidates:
        if candidate.is_file() and candidate.suffix == ".py":
            return candidate
    if is_only_in_jobs(modules_path):
        raise ConfigError(f"{key}: {reference} {ONLY_IN_JOBS}", ONLY_IN_JOBS_HINT)
    rule = f"{key}: {reference} must be a function of a Python file in {modules_path} or in an installed package"
    if is_package or any(path.with_suffix("").is_dir() for path in (file, *candidates)):
        raise ConfigError(f"{rule}, got a package", f"name the file in it: {module}.FILE.{function}")
    raise ConfigError(f"{rule}, got no such file", "correct it, or set modules_path to its folder")


def _installed_files(module: str) -> tuple[list[Path], bool]:
    """Files that may hold an installed module, and whether the module is an installed package itself."""
    first, *others = module.split(".")
    installed = importlib.util.find_spec(first)  # imports nothing, since the name has no dots
    folders = (installed and installed.submodule_search_locations) or ()
    if installed and installed.origin and not folders:
        return [Path(installed.origin)], False
    return [Path(folder, f"{'/'.join(others)}.py") for folder in folders if others], bool(folders) and not others


def unreadable_file(key: str, file: str, error: OSError) -> ConfigError:
    """The error for one of DATA_FILES that cannot be read."""
    if is_only_in_jobs(file):
        return ConfigError(f"{key}: {file.removeprefix(SHIPPED_PREFIX)} {ONLY_IN_JOBS}", ONLY_IN_JOBS_HINT)
    return ConfigError(f"{key} must be a file that can be read, got {file!r}: {error.strerror}", "correct the path")
