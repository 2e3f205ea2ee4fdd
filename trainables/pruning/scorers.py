"""The scorers of the pruning methods; `rounds.py` keeps the weights with the highest scores.

Shapes: S surviving weights of the whole network, layer by layer; scores are (S,). The table of methods (config/methods.py)
names the scorer of each method.
"""

from __future__ import annotations

import torch

from trainables.config.methods import DriveConfig, GraspConfig, RandomConfig, SnipConfig
from trainables.errors import ConfigError
from trainables.pruning.drive import connection_sensitivity, drive_score, drive_terms
from trainables.pruning.masks import flattened
from trainables.pruning.score_gradients import hessian_gradient_products
from trainables.pruning.scoring import Scores, ScoringContext
from trainables.pruning.sparsity_distributions import counts_of_trial, erk, random_masks, round_to_total
from trainables.pruning.synflow import require_flow, synaptic_flow
from trainables.runtime.seeding import derived_seed
from trainables.wording import one_line


def score_drive(context: ScoringContext) -> Scores:
    """Magnitude, connection and convergence sensitivity together (drive.py)."""
    options = context.options_as(DriveConfig)
    loss, gradients = context.loss_and_gradients(context.batches(score_batches=options.score_batches))
    terms = drive_terms(context.flatten(context.weights), context.flatten(gradients))
    return Scores(scores=drive_score(terms, options), loss=loss, terms=terms)


def score_snip(context: ScoringContext) -> Scores:
    """|w dL/dw|, the magnitude of dL/dc for a gate c = 1 on the weight (Lee et al., arXiv:1810.02340, equation 4).

    The scored weights are those that are trained; the authors' code scores another initialisation. Division by the sum is
    omitted, since it does not change the order.
    """
    options = context.options_as(SnipConfig)
    batches = context.batches(options.images_per_class, options.score_batches)
    loss, gradients = context.loss_and_gradients(batches, options.batch_norm)
    return Scores(scores=connection_sensitivity(context.flatten(context.weights), context.flatten(gradients)), loss=loss)


def score_grasp(context: ScoringContext) -> Scores:
    """w (H g): removing w changes the squared norm of the gradient by about -2 w (H g), so the highest preserve gradient flow.

    Source: Wang et al., arXiv:2002.07376, equation 8; its score is -w (H g), of which the largest are pruned.
    """
    options = context.options_as(GraspConfig)
    loss, products = hessian_gradient_products(
        context.model,
        context.weights,
        context.masks,
        list(context.batches(options.images_per_class, options.score_batches)),
        context.runtime,
        options.batch_norm,
        options.temperature,
        context.config.training.loss,
    )
    return Scores(scores=context.flatten(context.weights) * context.flatten(products), loss=loss)


def check_second_derivative(context: ScoringContext) -> None:
    """Raises ConfigError for a network whose gradient cannot be differentiated again."""
    try:
        score_grasp(context)
    except torch.OutOfMemoryError:
        raise
    except (ConfigError, RuntimeError) as error:
        raise ConfigError(
            f"method {context.config.method} must have a network whose gradient can be differentiated again, got "
            f"{one_line(str(error).partition(chr(10))[0])}",
            "use layers with a second derivative, or another method",
        ) from error


def score_synflow(context: ScoringContext) -> Scores:
    if context.round_ == 1:
        check_synaptic_flow(context)
    return Scores(scores=context.flatten(synaptic_flow(context.model, context.weights, context.image_shape)))


def check_synaptic_flow(context: ScoringContext) -> None:
    """Raises ConfigError for a network whose outputs are not a sum of products of its weights."""
    require_flow(context.model, context.weights, context.image_shape)


def score_magnitude(context: ScoringContext) -> Scores:
    return Scores(scores=context.flatten(context.weights).abs())


def score_random(context: ScoringContext) -> Scores:
    """Random scores, or the mask of a random selection with the layer counts that `random.layers` sets."""
    layers, weights = context.options_as(RandomConfig).layers, context.weights
    seed = derived_seed(context.config.seed, "random mask")
    sizes = {name: weight.numel() for name, weight in weights.items()}
    device = next(iter(weights.values())).device
    if layers == "uniform":
        generator = torch.Generator().manual_seed(seed)
        return Scores(scores=torch.rand(sum(sizes.values()), generator=generator, dtype=torch.float64).to(device))
    if layers == "erk":
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        counts = round_to_total(erk(shapes, context.keep / sum(sizes.values())), sizes, context.keep)
    else:
        counts = counts_of_trial(context.counts_of(layers), layers, sizes, context.keep)
    return Scores(scores=flattened(random_masks(weights, counts, seed)).double())
