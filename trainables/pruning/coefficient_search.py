"""SPDY's search for the weights of the layers' errors (arXiv:2201.13096): random starts, then changes of a few.

A choice is judged by the loss of the network that follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from random import Random

from trainables.errors import NonFiniteError

Coefficients = tuple[float, ...]


def search_coefficients(
    layers: int, loss_of: Callable[[Coefficients], float], *, starts: int, misses: int, seed: int
) -> tuple[Coefficients, float]:
    """The best coefficients in (0, 1] that were found, one for each layer, and their loss.

    Equal coefficients, which are the prior alone, are the first that is tried, so the result is never worse by this loss; then
    `starts` random ones. The best is changed in m places, drawn with replacement, for m from a tenth of the layers down to 1,
    but at least 1; an improvement is kept, and the next m follows after `misses` changes in a row without one. A loss that is
    not finite never wins.

    Raises:
        NonFiniteError: no loss is finite.
    """
    random = Random(seed)

    def drawn() -> float:
        return 1.0 - random.random()

    best: Coefficients = (1.0,) * layers
    least = loss_of(best)
    least = least if isfinite(least) else float("inf")
    for _ in range(starts):
        candidate = tuple(drawn() for _ in range(layers))
        if (loss := loss_of(candidate)) < least:
            best, least = candidate, loss
    for places in range(max(1, round(0.1 * layers)), 0, -1):
        missed = 0
        while missed < misses:
            changed = list(best)
            for place in random.choices(range(layers), k=places):
                changed[place] = drawn()
            loss, missed = loss_of(tuple(changed)), missed + 1
            if loss < least:
                best, least, missed = tuple(changed), loss, 0
    if not isfinite(least):
        raise NonFiniteError("the loss on the training images of spdy.samples is not finite for any choice of layers")
    return best, least
