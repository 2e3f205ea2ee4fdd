"""How many weights a configuration keeps, from the shapes of a network's prunable layers and before any training.

Shapes are kept in the node's cache by a digest of what they depend on, so PyTorch is imported only for a new network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

from trainables.config.counts import kept_count
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.references import is_custom
from trainables.data.facts import DataFacts
from trainables.errors import ConfigError
from trainables.runtime.cache_folder import cache_folder
from trainables.runtime.files import atomic_write
from trainables.runtime.json_text import parse_json

Shapes = Mapping[str, tuple[int, ...]]  # of prunable weights, by name
MODELS = Path(__file__).parent.parent / "models"


def kept_weights(config: TrialConfig, shapes: Shapes) -> int:
    """Weights kept at the end of pruning, of all in `shapes`; where channels are removed or times decide, at most so many."""
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    if config.is_dense:
        return total
    if config.quantity != "weights":
        return total
    if config.prunes_channels:
        return kept_count(config.sparsity, total)
    by_layer = [config.options.kept_in_layer(shape) for shape in shapes.values()]
    if all(count is not None for count in by_layer):
        return sum(count or 0 for count in by_layer)
    after_levels = config.options.kept_after_level(config.rounds, total)
    return kept_count(config.sparsity, total) if after_levels is None else after_levels


def decides_kept_weights(config: TrialConfig) -> bool:
    """Whether the method's options, and not the sparsity alone, determine the number of kept weights."""
    return config.options.fixed_sparsity() is not None or config.options.kept_after_level(1, 100) is not None


def check_kept_weights(config: TrialConfig, shapes: Shapes) -> None:
    """Raises ConfigError if no weight of the network would be kept."""
    if kept_weights(config, shapes) == 0:
        total = sum(prod(shape) for shape in shapes.values())
        raise ConfigError(
            f"sparsity: {config.model} must keep at least one of its {total:,} prunable weights, got sparsity "
            f"{config.sparsity!r} and 0 weights",
            f"choose a sparsity of at most {highest_sparsity(total)!r}",
        )


def highest_sparsity(prunable: int) -> float:
    """The highest of 0.9, 0.99, 0.999... that keeps at least one of `prunable` weights; 0 if none does."""
    highest = 0.0
    for digits in range(1, 16):
        sparsity = round(1 - 10**-digits, digits)
        if kept_count(sparsity, prunable) == 0:
            break
        highest = sparsity
    return highest


def prunable_shapes(config: TrialConfig, network: NetworkShape) -> Shapes:
    """Shapes of the weights that the trial may prune. Raises ConfigError if `prunable.exclude` leaves nothing."""
    patterns = config.prunable.exclude
    kept = {
        name: shape for name, shape in network.layers.items() if not any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not kept:
        raise ConfigError(f"prunable.exclude: {list(patterns)} leaves no layer to prune")
    return {f"{name}.weight": shape for name, shape in kept.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkShape:
    """The numbers of a network.

    Attributes:
        layers: shapes of the weights of all conv and linear layers, by the name of the layer.
        parameters: that are trained, in all.
        values: numbers of its state, which has buffers too.
    """

    layers: Shapes
    parameters: int
    values: int

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> NetworkShape:
        layers = {name: tuple(shape) for name, shape in record["layers"].items()}
        return NetworkShape(layers=layers, parameters=record["parameters"], values=record["values"])


def network_shape(config: TrialConfig, facts: DataFacts, custom_files: CustomFiles) -> NetworkShape:
    """The numbers of the trial's network, which is built if they are not known. Raises ConfigError if that fails."""
    if known := known_network_shape(config, facts, custom_files):
        return known
    shape = _built_shape(config, facts, custom_files)
    with suppress(OSError), atomic_write(_file(config, facts, custom_files)) as partial:  # a cache without room; counted again
        partial.write_text(json.dumps(asdict(shape)))
    return shape


def known_network_shape(config: TrialConfig, facts: DataFacts, custom_files: CustomFiles) -> NetworkShape | None:
    """The same from this machine's cache; None if it is not there."""
    try:
        return NetworkShape.from_json(parse_json(_file(config, facts, custom_files).read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # earlier versions wrote the layers alone
        return None


def _file(config: TrialConfig, facts: DataFacts, custom_files: CustomFiles) -> Path:
    return cache_folder() / f"network-{_content(config, facts, custom_files)}.json"


def _content(config: TrialConfig, facts: DataFacts, custom_files: CustomFiles) -> str:
    """16 hex digits over everything that determines the layers of a network."""
    if is_custom(config.model):
        code_digest = custom_files.digests[config.model]
    else:
        code_digest = _digest_of_built_in_code()
    inputs = [config.model, config.width, facts.image_shape, facts.num_classes, code_digest]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


@cache
def _digest_of_built_in_code() -> str:
    """Of all that makes built-in networks; once in a process, as a plan asks for every trial."""
    code = b"".join(file.read_bytes() for file in (*sorted(MODELS.glob("*.py")), Path(__file__)))
    return f"{hashlib.sha256(code).hexdigest()} {version('torchvision')}"


def _built_shape(config: TrialConfig, facts: DataFacts, custom_files: CustomFiles) -> NetworkShape:
    from trainables.models.prunable import prunable_weights
    from trainables.models.registry import meta_model, network_of

    if is_custom(config.model):
        custom_files.import_modules(config)
        network = network_of(config, facts.image_shape, facts.num_classes)
    else:
        network = meta_model(config.model, facts.image_shape, facts.num_classes, config.width)
    layers = {name.removesuffix(".weight"): tuple(weight.shape) for name, weight in prunable_weights(network).items()}
    return NetworkShape(
        layers=layers,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        values=sum(tensor.numel() for tensor in network.state_dict().values()),
    )
