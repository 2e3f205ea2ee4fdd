"""How alike two masks of one network are: weight by weight, and by the widths of their layers."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.pruning.masks import Masks


def overlap(first: Masks, second: Masks) -> float:
    """Weights that both keep over weights that either keeps, in [0, 1]; two random masks of density d share about d / (2 - d).

    Unlike `mask_distance` it does not grow by itself with the sparsity.
    """
    both = sum(int((first[name] & second[name]).sum()) for name in first)
    either = sum(int((first[name] | second[name]).sum()) for name in first)
    return both / either if either else 1.0


def mask_distance(first: Masks, second: Masks) -> float:
    """Share of weights on which the masks differ: the distance of Early-Bird tickets (You et al., arXiv:1909.11957).

    Two random masks of density d differ by 2 d (1 - d), so at high sparsity every two masks are near.
    """
    differ = sum(int((first[name] ^ second[name]).sum()) for name in first)
    return differ / sum(mask.numel() for mask in first.values())


def width_similarity(first: Masks, second: Masks) -> float:
    """1 - mean over layers of |n1 - n2| / (n1 + n2), n the kept weights of a layer; which weights they are does not matter.

    Source: Psi of Shen et al., "When to Prune?", arXiv:2110.12007, equation 5, with kept weights in the place of neurons. A
    layer that both empty counts as equal.
    """
    counts = [(int(first[name].sum()), int(second[name].sum())) for name in first]
    return 1 - sum(abs(n - m) / (n + m) if n + m else 0.0 for n, m in counts) / len(counts)


def early_pruning_indicator(history: Sequence[Masks], last: int = 5) -> float:
    """Mean width similarity of the newest mask with up to `last` before it: near 1 where waiting no longer changes the widths.

    Source: EPI of Shen et al., arXiv:2110.12007, equation 6; the paper's number of earlier masks was not at hand.
    """
    *earlier, newest = history[-last - 1 :]
    assert earlier, "one mask has nothing before it"
    return sum(width_similarity(newest, one) for one in earlier) / len(earlier)
