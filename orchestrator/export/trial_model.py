"""The sparse model of a finished trial, as the trial has stored it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from orchestrator.command_line import command
from orchestrator.errors import SetupError, UserError
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.trial_results import damaged_model
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from trainables.errors import TrialError
from trainables.records.file_names import MODEL, NETWORK

if TYPE_CHECKING:
    from trainables.export.sparse_model import SparseModel


def trial_model(storage: Storage, spec: SweepSpec, key: str, result: dict[str, Any]) -> SparseModel:
    """The model, whose file is compared with the digest in the trial's result.

    Raises:
        SetupError: its file is gone or damaged.
        UserError: the module of a custom network cannot be imported.
    """
    from trainables.custom.imports import bundle
    from trainables.export.sparse_model import load_sparse_model

    if not storage.exists(trial_file(key, MODEL)):
        raise SetupError(
            f"{trial_file(key, MODEL)} is gone",
            f"restore it, or compute the trials again with `{command('run', 'FILE', '--recompute')}`",
            code="model-gone",
        )
    if problem := damaged_model(storage, key, result):
        raise SetupError(
            problem,
            f"`{command('doctor', '--fix')}` archives it, then `{command('resume', spec.name)}` computes the trial again",
            code="trial-damaged",
        )
    content, network = storage.read(trial_file(key, MODEL)), storage.read(trial_file(key, NETWORK))
    assert content is not None
    try:
        if network is not None:
            sys.path.append(spec.custom_files().modules_path)  # its file may import others beside it
            bundle(network)
        return load_sparse_model(content)
    except (TrialError, ValueError) as error:
        raise UserError(f"trial {key}: its network cannot be built: {error}", code="network-invalid") from error
