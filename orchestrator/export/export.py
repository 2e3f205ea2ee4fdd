"""Exports a sweep's model: chooses the trial, writes the format, compares it with the trial's model, writes the model card.

All of it is written beside the target and moved there at the end, so that nothing half-written or wrong is ever left.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.errors import SetupError, UserError
from orchestrator.export.card import model_card
from orchestrator.export.facts import facts_of
from orchestrator.export.images import compared_images
from orchestrator.export.selection import select_trial
from orchestrator.export.trial_model import trial_model
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.state.sweep_folder import SweepFolder
from trainables.export.table import FORMATS, ListedFormat

CARD, FACTS = "README.md", "export.json"
NO_LICENSE = "not stated"


def export_model(
    folder: SweepFolder,
    target: Path,
    format_name: str,
    *,
    key: str | None = None,
    sparsity: float | None = None,
    license_: str = NO_LICENSE,
    measure_latency: bool = True,
    others: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the model into the target folder, and returns the facts about it, which export.json holds.

    Args:
        key, sparsity: which model (see `select_trial`).
        others: further options of the running command, for commands that messages print.

    Raises:
        UserError: the target has files, there is no such trial, the format cannot hold the model, or a package is missing.
        SetupError: the trial's files are damaged, or the exported model is not equal to the trial's.
    """
    _require_free(target)
    listed = FORMATS[format_name]
    _require_packages(listed)
    selection = select_trial(folder, key, sparsity, others)
    spec = spec_from_resolved(folder.storage.read_json(folder.file("spec.json")))
    model = trial_model(folder.storage, spec, selection.trial.key, selection.result)
    from trainables.export.format import Exported, ExportRefusedError
    from trainables.export.verification import ExportFailedError, verify

    images = compared_images(spec, folder.storage, selection.result)
    with _written_whole(target) as partial:
        format_ = listed.load()
        try:
            code = format_.write(model, partial)
            exported = Exported(format=format_, folder=partial, code=code, packages=listed.packages)
            verification = verify(exported, model, images.images, measure=measure_latency)
        except ExportRefusedError as error:
            raise UserError(error.message, error.hint, code="format-refused") from error
        except ExportFailedError as error:
            raise SetupError(
                f"the exported model does not pass its check: {error}",
                "nothing was written; try another --format",
                code="export-check-failed",
            ) from error
        facts = facts_of(
            sweep=folder.name,
            selection=selection,
            listed=listed,
            model=model,
            images=images,
            verification=verification,
            code=code,
            files=sorted(partial.iterdir()),
            license_=license_,
        )
        (partial / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        (partial / CARD).write_text(model_card(facts))
    return facts


def _require_free(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        what = "a folder with files in it" if target.is_dir() else "a file"
        raise UserError(f"--out must be a new or empty folder, got {what}: {target}", "give another name", code="file-exists")


def _require_packages(listed: ListedFormat) -> None:
    if listed.extra and (missing := [name for name in listed.modules if importlib.util.find_spec(name) is None]):
        raise UserError(
            f"--format {listed.name} needs the package {missing[0]}, which is not installed",
            f"`pip install 'drive-sweep[{listed.extra}]'`",
            code="package-missing",
        )


@contextmanager
def _written_whole(target: Path) -> Iterator[Path]:
    """A folder beside the target, which takes its place at the end; after an error there is none."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise _not_writable(target, error) from error
    try:
        yield partial
        partial.chmod(0o755)  # that of mkdtemp is the owner's alone
        try:
            partial.rename(target)
        except OSError as error:
            raise _not_writable(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _not_writable(target: Path, error: OSError) -> UserError:
    return UserError(
        f"--out must be a folder that can be written, got {str(target)!r}: {error.strerror}", code="output-not-writable"
    )
