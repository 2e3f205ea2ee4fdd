"""The prunable weights of a network."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import Tensor, nn

from trainables.errors import ConfigError


def prunable_weights(model: nn.Module, exclude: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Name -> weight of every conv and linear layer that is not excluded, in the order of the network.

    Raises:
        ConfigError: a pattern of `exclude` matches no layer, or all layers are excluded.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ConfigError(
                f"prunable.exclude: {pattern!r} matches no conv or linear layer", f"layers are {', '.join(layers)}"
            )
    kept = {name: m for name, m in layers.items() if not any(fnmatchcase(name, pattern) for pattern in exclude)}
    if not kept:
        raise ConfigError(f"prunable.exclude: {list(exclude)} leaves no layer to prune")
    return {f"{name}.weight": module.weight for name, module in kept.items()}
