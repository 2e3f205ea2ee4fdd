"""The metadata in the file of a sparse model, from which its network is built again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from trainables.config.spiking import SpikingConfig
from trainables.custom.imports import bundled_function
from trainables.custom.references import is_custom
from trainables.data.normalization import Normalization
from trainables.models.custom_network import build_custom_network
from trainables.models.registry import meta_model
from trainables.models.spiking import with_spikes


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """The metadata to run the weights: network, input, classes, and the configuration of the trial.

    Attributes:
        source_sha256: of the source file of a custom network.
    """

    model: str
    image_shape: tuple[int, int, int]
    num_classes: int
    normalization: Normalization
    config: dict[str, Any]
    source_sha256: str | None = None

    @property
    def spiking(self) -> SpikingConfig:
        return SpikingConfig(**self.config.get("training", {}).get("spiking", {}))

    def network(self) -> nn.Module:
        """The network of full size without memory for its weights; a custom one, whose module travels with it, has weights."""
        if is_custom(self.model):
            function = bundled_function(self.model, str(self.source_sha256))
            return build_custom_network(self.model, function, self.image_shape, self.num_classes)
        network = meta_model(self.model, self.image_shape, self.num_classes, self.config.get("width", 1))
        return with_spikes(network, self.spiking)


def card_fields(card: ModelCard) -> dict[str, Any]:
    """The fields of the card; without None, so that files of built-in networks are those of older versions."""
    return {name: value for name, value in asdict(card).items() if value is not None}


def card_of(fields: dict[str, Any]) -> ModelCard:
    """The card of a header. Raises exceptions of many types if it is not as `card_fields` gives it."""
    normalization = Normalization(**{name: tuple(map(float, values)) for name, values in fields["normalization"].items()})
    channels, height, width = map(int, fields["image_shape"])
    card = ModelCard(**fields | {"normalization": normalization, "image_shape": (channels, height, width)})
    if not (isinstance(card.model, str) and isinstance(card.config, dict) and isinstance(card.num_classes, int)):
        raise ValueError("its card has fields of other types")
    return card
