"""The input and output of scorers, which custom functions share (`drive-sweep guide methods`).

Shapes: S surviving weights of the whole network, layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn

from trainables.channels.units import ChannelUnits
from trainables.config.options import BatchNormMode, CustomOptions, Options
from trainables.config.trial import TrialConfig
from trainables.pruning.implementations import load_implementation
from trainables.pruning.masks import Masks, flattened
from trainables.pruning.score_gradients import scoring_gradients
from trainables.pruning.sparsity_distributions import LayerCounts
from trainables.runtime.device import Runtime

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), normalised, and labels (B,)
AnyOptions = TypeVar("AnyOptions", bound=Options)


@dataclass(frozen=True, kw_only=True)
class ScoringContext:
    """The input of a scorer: the network with its masks applied.

    Attributes:
        weights: prunable weights by name; pruned ones are zero.
        surviving: positions of the surviving weights in the flattened network; None if all survive.
        keep: number of weights that the round will keep.
        round_: counted from 1.
        train_images: their number.
        draw_batches: see `batches`.
        counts_of: kept weights by layer of another trial, by its key.
        units: of the network, where whole channels are removed.
    """

    model: nn.Module
    weights: Mapping[str, Tensor]
    masks: Masks
    surviving: Tensor | None
    keep: int
    config: TrialConfig
    round_: int
    image_shape: tuple[int, int, int]
    runtime: Runtime
    train_images: int
    draw_batches: Callable[[int | None, int], Iterator[Batch]]
    counts_of: LayerCounts = lambda key: None
    units: ChannelUnits | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of a custom method, as in the sweep file."""
        return self.options_as(CustomOptions).to_mapping()

    def options_as(self, kind: type[AnyOptions]) -> AnyOptions:
        assert isinstance(self.config.options, kind)
        return self.config.options

    def batches(self, images_per_class: int | None = None, score_batches: int = 1) -> Iterator[Batch]:
        """Training images for one score, seeded and without augmentation; different in every round.

        Args:
            images_per_class: number of images of each class, instead of `score_batches` training batches.
        """
        return self.draw_batches(images_per_class, score_batches)

    def loss_and_gradients(
        self, batches: Iterable[Batch], batch_norm: BatchNormMode = "batch"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over the images and its gradient for every prunable weight; the network is not changed."""
        loss = self.config.training.loss
        return scoring_gradients(self.model, self.weights, batches, self.runtime, batch_norm, loss_name=loss)

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Tensors in the shapes of the weights -> their values at the surviving weights, (S,)."""
        return flattened(tensors, self.surviving)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores (S,), or (U,) of channel units, the loss (None without data), and the raw terms of a score that has several."""

    scores: Tensor
    loss: Tensor | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)


def score(context: ScoringContext) -> Scores:
    """The scores of the trial's method."""
    scores: Scores = load_implementation(context.config.pruning.implementation)(context)
    return scores
