"""How many weights a configuration keeps, known before anything is trained: from the shapes of a network's prunable layers.

Shapes are kept in the node's cache, by what they follow from, so PyTorch is imported only for a network that was not looked at
before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib.metadata import version
from math import prod
from pathlib import Path

from trainables.config.counts import kept_count
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.references import is_custom
from trainables.data.facts import DataFacts
from trainables.errors import ConfigError
from trainables.runtime.cache_folder import cache_folder
from trainables.runtime.files import atomic_write

Shapes = Mapping[str, tuple[int, ...]]  # of prunable weights, by name
MODELS = Path(__file__).parent.parent / "models"


def kept_weights(config: TrialConfig, shapes: Shapes) -> int:
    """Weights that are left at the end of pruning, of all those in `shapes`."""
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    if config.is_dense:
        return total
    by_layer = [config.options.kept_in_layer(shape) for shape in shapes.values()]
    if all(count is not None for count in by_layer):
        return sum(count or 0 for count in by_layer)
    of_levels = config.options.kept_after_level(config.rounds, total)
    return kept_count(config.sparsity, total) if of_levels is None else of_levels


def decides_kept_weights(config: TrialConfig) -> bool:
    """Whether the number of kept weights follows from the method's options and not from the sparsity alone."""
    return config.options.fixed_sparsity() is not None or config.options.kept_after_level(1, 100) is not None


def check_kept_weights(config: TrialConfig, shapes: Shapes) -> None:
    """Raises ConfigError where nothing would be left of the network."""
    if kept_weights(config, shapes) == 0:
        total = sum(prod(shape) for shape in shapes.values())
        raise ConfigError(
            f"sparsity: {config.model} must keep at least one of its {total:,} prunable weights, got sparsity "
            f"{config.sparsity!r} and 0 weights",
            f"choose a sparsity of at most {highest_sparsity(total)!r}",
        )


def highest_sparsity(prunable: int) -> float:
    """The highest of 0.9, 0.99, 0.999... that keeps a weight of so many; 0 if none does."""
    highest = 0.0
    for digits in range(1, 16):
        sparsity = round(1 - 10**-digits, digits)
        if kept_count(sparsity, prunable) == 0:
            break
        highest = sparsity
    return highest


def prunable_shapes(config: TrialConfig, facts: DataFacts, custom_files: CustomFiles) -> Shapes:
    """Shapes of the weights that the trial may prune.

    Raises:
        ConfigError: the network cannot be made, or a pattern of `prunable.exclude` takes out everything.
    """
    file = cache_folder() / f"network-{_content(config, facts, custom_files)}.json"
    try:
        layers = {name: tuple(shape) for name, shape in json.loads(file.read_text()).items()}
    except (OSError, ValueError):
        layers = _layers(config, facts, custom_files)
        with atomic_write(file) as partial:
            partial.write_text(json.dumps(layers))
    patterns = config.prunable.exclude
    kept = {name: shape for name, shape in layers.items() if not any(fnmatchcase(name, pattern) for pattern in patterns)}
    if not kept:
        raise ConfigError(f"prunable.exclude: {list(patterns)} leaves no layer to prune")
    return {f"{name}.weight": shape for name, shape in kept.items()}


def _content(config: TrialConfig, facts: DataFacts, custom_files: CustomFiles) -> str:
    """16 hex digits over all that decides about the layers of a network."""
    if is_custom(config.model):
        made_by = custom_files.digests[config.model]
    else:
        code = b"".join(file.read_bytes() for file in (*sorted(MODELS.glob("*.py")), Path(__file__)))
        made_by = f"{hashlib.sha256(code).hexdigest()} {version('torchvision')}"
    inputs = [config.model, config.width, facts.image_shape, facts.num_classes, made_by]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def _layers(config: TrialConfig, facts: DataFacts, custom_files: CustomFiles) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of all conv and linear layers, by the name of the layer."""
    from trainables.models.prunable import prunable_weights
    from trainables.models.registry import meta_model, network_of

    if is_custom(config.model):
        custom_files.import_modules(config)
        network = network_of(config, facts.image_shape, facts.num_classes)
    else:
        network = meta_model(config.model, facts.image_shape, facts.num_classes, config.width)
    return {name.removesuffix(".weight"): tuple(weight.shape) for name, weight in prunable_weights(network).items()}
