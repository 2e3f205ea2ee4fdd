"""Ways to select the weights with the highest scores, by their number: sorting, kthvalue, counting.

All give the same masks: those above the threshold, then the first of those equal to it. The product's own way is among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import torch
from torch import Tensor

from tests.gpu.rows import Bench, Row, checked, measured
from trainables.pruning.masks import topk_masks
from trainables.runtime.device import Runtime

COUNTS = (100_000, 1_000_000, 10_000_000, 25_000_000)
DENSITY = 0.1
CALLS = 7
BITS, BINS = 8, 256  # of a pass of counting

Threshold = Callable[[Tensor, int], Tensor]


def by_sorting(values_S: Tensor, rank: int) -> Tensor:
    """The value at position `rank` (from 0) in ascending order."""
    return values_S.sort().values[rank]


def by_kthvalue(values_S: Tensor, rank: int) -> Tensor:
    """The same."""
    return values_S.kthvalue(rank + 1).values


def by_counting(values_S: Tensor, rank: int) -> Tensor:
    """The same, of float32 that are finite: in four passes, each of which counts the values by 8 more of their bits.

    Order as in a radix sort: the bits of positive floats grow with them; those of negative ones are inverted.
    """
    bits_S = (values_S + 0.0).view(torch.int32).long()  # -0.0 becomes 0.0, its equal
    keys_S = torch.where(bits_S >= 0, bits_S + (1 << 31), ~bits_S & 0xFFFF_FFFF)
    prefix = torch.zeros((), dtype=torch.int64, device=values_S.device)
    left = torch.tensor(rank, device=values_S.device)
    for shift in range(32 - BITS, -1, -BITS):
        is_candidate_S = (keys_S >> (shift + BITS)) == prefix
        digits_S = (keys_S >> shift) & (BINS - 1)
        counts = torch.bincount(torch.where(is_candidate_S, digits_S, BINS), minlength=BINS + 1)[:BINS]
        ends = counts.cumsum(0)
        digit = (ends <= left).sum()
        left = left - (ends - counts).take(digit)
        prefix = (prefix << BITS) | digit
    bits = torch.where(prefix >= 1 << 31, prefix - (1 << 31), ~prefix)
    return bits.to(torch.int32).view(torch.float32)


def highest(threshold_of: Threshold, values_S: Tensor, count: int) -> Tensor:
    """Bool (S,) with exactly `count` True, at least 1: the highest values, of equal ones the first."""
    threshold = threshold_of(values_S, len(values_S) - count)
    kept_S = values_S >= threshold
    if surplus := int(kept_S.count_nonzero()) - count:
        kept_S[(values_S == threshold).nonzero().flatten()[-surplus:]] = False
    return kept_S


def by_product(values_S: Tensor, count: int) -> Tensor:
    """The same by the code of a pruning round."""
    return topk_masks(values_S, {"": torch.ones_like(values_S, dtype=torch.bool)}, count)[""]


PRODUCT = "the product"
WAYS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sort": partial(highest, by_sorting),
    "kthvalue": partial(highest, by_kthvalue),
    "histogram": partial(highest, by_counting),
    PRODUCT: by_product,
}


def measure(bench: Bench) -> Iterator[Row]:
    yield _determinism_of_kthvalue(bench)
    Runtime(device=bench.device, deterministic=False).activate()
    for count in COUNTS[:1] if bench.brief else COUNTS:
        values_S = torch.randn(count, generator=torch.Generator().manual_seed(0)).abs().to(bench.device)
        values_S[::10] = values_S[0].clone()  # equal scores
        kept = round(DENSITY * count)
        masks = {name: way(values_S, kept) for name, way in WAYS.items()}
        same = all(torch.equal(mask, masks[PRODUCT]) for mask in masks.values())
        holds = same and int(masks[PRODUCT].count_nonzero()) == kept
        yield checked(f"{count:,} weights: all ways select the same", holds, "equal masks")
        times = _milliseconds({name: partial(way, values_S, kept) for name, way in WAYS.items()}, bench)
        fastest = min(WAYS, key=lambda name: times[name])
        for name, milliseconds in times.items():
            note = "fastest" if name == fastest else f"{milliseconds / times[fastest]:.2f} times {fastest}"
            yield measured(f"{count:,} weights, {name}", round(milliseconds, 3), "ms", note=note)


def _determinism_of_kthvalue(bench: Bench) -> Row:
    Runtime(device=bench.device).activate()
    try:
        torch.arange(8.0, device=bench.device).kthvalue(3)
        answer = "yes"
    except RuntimeError:
        answer = "no"
    return measured("kthvalue runs where kernels must be deterministic", answer, note="the product sorts on a GPU")


def _milliseconds(calls: dict[str, Callable[[], object]], bench: Bench) -> dict[str, float]:
    """The median of each call, in turns, without a first one."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(CALLS + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if bench.device == "cuda":
                torch.cuda.synchronize()
            if round_:
                times[name].append(1000 * (time.perf_counter() - began))
    return {name: median(each) for name, each in times.items()}
