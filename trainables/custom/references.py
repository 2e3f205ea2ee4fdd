"""References to functions of the user's (network, pruning method, data set, loss): "module:MODULE.FUNCTION".

MODULE is one Python file, looked up below `modules_path`, else in an installed package. The file's SHA-256 is part of the keys
of trials that use it; what the file imports from other files of the user is not.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

from trainables.config.methods import CUSTOM_PREFIX, DEFAULT_METHOD
from trainables.config.trial import TargetConfig, TrialConfig

PREFIX = CUSTOM_PREFIX
REFERENCE = re.compile(r"module:[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
WEIGHTS = "initial_weights"  # stands for the file of the initial weights where files are named by reference
TIMINGS = "timings"  # the same of the timing table
DATA_FILES = (WEIGHTS, TIMINGS)


def is_custom(name: str) -> bool:
    """Whether a network, pruning method, data set or loss is a function of the user's."""
    return name.startswith(PREFIX)


def module_and_function(reference: str) -> tuple[str, str]:
    """Module and function of a reference."""
    module, _, function = reference.removeprefix(PREFIX).rpartition(".")
    return module, function


def custom_references(config: TrialConfig) -> dict[str, str]:
    """Key of the sweep file -> reference (or one of DATA_FILES), of every file of the user's that the trial uses."""
    names = {
        "dataset": config.dataset.name,
        "model": config.model,
        "method": config.method,
        "training.loss": config.training.loss,
    }
    references = {key: name for key, name in names.items() if is_custom(name)}
    used = {WEIGHTS: config.initial_weights, TIMINGS: config.uses_timings}
    return references | {name: name for name, is_used in used.items() if is_used}


def without_method(config: TrialConfig) -> TrialConfig:
    """A trial with the same warm-up, to which a method of the user's and a timing table are nothing."""
    method = DEFAULT_METHOD if is_custom(config.method) else config.method
    if method == config.method and not config.uses_timings:
        return config
    return replace(config, method=method, target=TargetConfig())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
