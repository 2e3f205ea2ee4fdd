"""What a plan will cost: the price of an hour times the GPUs, or on CPUs the slots, that its trials hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import UserError
from orchestrator.planning.resolved_settings import configured_gpu_share
from orchestrator.spec.schema import Resources


@dataclass(frozen=True, kw_only=True)
class Price:
    """The price of a plan; figures are None where they are not known.

    Attributes:
        per_hour: of one unit.
        unit: GPU, or slot (the CPUs of one trial).
        units_per_slot: GPUs that a trial holds, or 1.
        amount: per_hour x hours of slots x units_per_slot.
        reason: why it is not known.
    """

    per_hour: float
    unit: str
    units_per_slot: float | None
    amount: float | None
    reason: str = ""


def parsed_price(text: str) -> float:
    """The value of --price-per-hour. Raises UserError if it is no price."""
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise UserError(
            f"--price-per-hour: must be a number of at least 0, got {text!r}",
            "give the price of one GPU for an hour, on CPUs that of one trial's CPUs",
            code="option-invalid",
        )
    return price


def price_of(hours: float | None, per_hour: float, resources: Resources, resolved: dict[str, Any]) -> Price:
    """The price of so many hours of one slot.

    Args:
        resolved: automatic settings of an earlier run of the sweep, or of a measurement; may lack any.
    """
    device = resolved.get("device") if resources.required_device == "auto" else resources.required_device
    if device is None and resources.gpus_per_trial is not None:
        device = "cuda"
    units: float | None = configured_gpu_share(resources.gpus_per_trial, "cuda")
    unit = "GPU"
    if device == "cpu":
        unit, units = "slot", 1.0
    elif device is None:  # by default a trial has a whole GPU, if there is one
        unit, units = "GPU or slot", 1.0
    elif units is None:
        units = resolved.get("gpus_per_trial")
    if hours is None or units is None:
        reason = "the time is not known" if hours is None else "how many trials share a GPU is measured when the sweep starts"
        return Price(per_hour=per_hour, unit=unit, units_per_slot=units, amount=None, reason=reason)
    return Price(per_hour=per_hour, unit=unit, units_per_slot=units, amount=per_hour * hours * units)
