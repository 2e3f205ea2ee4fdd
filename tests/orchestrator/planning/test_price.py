"""The price of a plan: the unit, what is multiplied, and what cannot be known."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.planning.price import parsed_price, price_of
from orchestrator.spec.schema import Resources


@pytest.mark.parametrize(
    ("resources", "resolved", "unit", "units", "amount"),
    [
        ({"device": "cpu"}, {}, "slot", 1.0, 25.0),
        ({"device": "cuda"}, {}, "GPU", 1.0, 25.0),
        ({"device": "cuda", "gpus_per_trial": 0.25}, {}, "GPU", 0.25, 6.25),
        ({"gpus_per_trial": 0.5}, {}, "GPU", 0.5, 12.5),
        ({"gpus_per_trial": 4.0}, {"device": "cpu"}, "GPU", 4.0, 100.0),  # which the sweep used before it took GPUs
        ({"device": "cpu", "workers_per_trial": 4}, {}, "slot", 1.0, 25.0),
        ({"gpus_per_trial": "auto"}, {"device": "cuda", "gpus_per_trial": 0.5}, "GPU", 0.5, 12.5),
        ({"gpus_per_trial": "auto"}, {}, "GPU", None, None),
        ({}, {"device": "cpu"}, "slot", 1.0, 25.0),
        ({}, {"device": "cuda"}, "GPU", 1.0, 25.0),
        ({}, {}, "GPU or slot", 1.0, 25.0),  # whichever the machine has
    ],
)
def test_price_is_hours_of_gpus_or_slots(
    resources: dict[str, Any], resolved: dict[str, Any], unit: str, units: float | None, amount: float | None
) -> None:
    price = price_of(10.0, 2.5, Resources(**resources), resolved)
    assert (price.unit, price.units_per_slot, price.amount) == (unit, units, amount)
    assert bool(price.reason) == (amount is None)


def test_without_hours_there_is_no_price() -> None:
    price = price_of(None, 2.5, Resources(device="cpu"), {})
    assert (price.amount, price.reason) == (None, "the time is not known")


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "-inf", "two", ""])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--price-per-hour: must be a number of at least 0, got"):
        parsed_price(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("2.5", 2.5), ("1e3", 1000.0)])
def test_prices_are_read(text: str, value: float) -> None:
    assert parsed_price(text) == value
