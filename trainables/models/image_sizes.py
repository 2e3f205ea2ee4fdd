"""The image sizes that built-in networks support in both passes, without PyTorch. Custom networks are checked by a run."""

from __future__ import annotations

from trainables.errors import ConfigError
from trainables.models.table import NETWORKS

MAX_SUGGESTED = 512  # pixels, largest side that a hint suggests


def takes_image(model: str, height: int, width: int) -> bool:
    """Whether a built-in network supports images of this size."""
    network = NETWORKS.get(model)
    return network is None or network.takes_image(height, width)


def sizes_that_work(model: str, height: int, width: int) -> str:
    """A hint with the nearest square sizes that a built-in network supports."""
    side = max(height, width)
    smaller = next((size for size in range(side, 0, -1) if takes_image(model, size, size)), None)
    larger = next((size for size in range(side, MAX_SUGGESTED) if takes_image(model, size, size)), None)
    nearest = " and ".join(f"{size} x {size}" for size in dict.fromkeys((smaller, larger)) if size is not None)
    return f"the nearest that work are {nearest}; resnet20 takes any"


def image_size_problem(model: str, height: int, width: int) -> ConfigError | None:
    """The error of a built-in network that does not support images of this size; None if it does."""
    if takes_image(model, height, width):
        return None
    return ConfigError(
        f"model: {model} must get images that it takes, got {height} x {width} pixels", sizes_that_work(model, height, width)
    )
