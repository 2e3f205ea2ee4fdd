"""How many weights a sparsity keeps. Users give a sparsity; the code works with counts."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal


def kept_count(sparsity: float, prunable: int) -> int:
    """Weights kept at the end: (1 - sparsity) * prunable rounded half up, in decimal.

    Binary floats would round 0.95 of 270,896 differently from a calculation by hand.
    """
    exact = (1 - Decimal(repr(float(sparsity)))) * prunable
    return int((exact + Decimal("0.5")).to_integral_value(rounding=ROUND_FLOOR))


def imp_levels(sparsity: float, fraction: float) -> int:
    """Levels after which pruning `fraction` of the rest at each leaves at most 1 - sparsity; 11 for 90 % by a fifth."""
    density, rest, levels = 1 - Decimal(repr(float(sparsity))), Decimal(1), 0
    while rest > density:
        rest *= 1 - Decimal(repr(float(fraction)))
        levels += 1
    return levels
