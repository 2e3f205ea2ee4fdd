"""How long a plan trains at a speed that the user gives, for `plan --images-per-second`; its data need not be here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.errors import UserError
from orchestrator.planning.durations import Timed, Work, network_of
from orchestrator.planning.plan import Plan
from trainables.config.trial import DatasetConfig
from trainables.data.split_counts import split_counts
from trainables.data.table import dataset_of


@dataclass(frozen=True, kw_only=True)
class GivenSpeed:
    """Training images per second of one slot, and the epochs and rounds of the plan's networks at it: rounds take no time."""

    images_per_second: float
    timed: tuple[Timed, ...]


def parsed_speed(text: str) -> float:
    """The value of --images-per-second. Raises UserError if it is no speed."""
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise UserError(
            f"--images-per-second: must be a number above 0, got {text!r}",
            "give the images that one slot trains on in a second",
            code="option-invalid",
        )
    return speed


def at_speed(plan: Plan, images_per_second: float) -> GivenSpeed:
    """What the plan's networks take at this speed.

    Raises:
        UserError: the number of images is not known.
    """
    kinds = {(network_of(trial.config), trial.config.method): trial.config for trial in plan.trials}
    timed = []
    for (network, method), config in kinds.items():
        batch_size = config.training.batch_size
        seconds = _training_images(plan, config.dataset) // batch_size * batch_size / images_per_second
        epoch = Work(network=network, method=method, epochs=1)
        timed.append(Timed(work=epoch, seconds=seconds, epoch_seconds=seconds))
        timed.append(Timed(work=Work(network=network, method=method, epochs=0, rounds=1), seconds=0.0, epoch_seconds=0.0))
    return GivenSpeed(images_per_second=images_per_second, timed=tuple(timed))


def _training_images(plan: Plan, config: DatasetConfig) -> int:
    """Images of an epoch, without those held out for validation."""
    if (facts := plan.data_facts) is not None:
        return sum(split_counts(config, facts.train_counts, facts.test_counts).train)
    images = config.limit or dataset_of(config.name).train_images
    if images is None:
        raise UserError(
            f"--images-per-second: the number of images of {config.name} must be known, got none: "
            + (plan.data_problem or "the data have not been read yet"),
            "" if plan.data_problem else "--hash reads them",
            code="data-unknown",
        )
    return images - round(config.validation * images)
