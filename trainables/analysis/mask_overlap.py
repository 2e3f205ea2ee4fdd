"""Similarity of two masks of one network: by weights, and by the number of kept weights in each layer."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.pruning.masks import Masks


def overlap(first: Masks, second: Masks) -> float:
    """Intersection over union of the kept weights (Jaccard index), in 0..1; about d / (2 - d) for random masks of density d."""
    both = sum(int((first[name] & second[name]).sum()) for name in first)
    either = sum(int((first[name] | second[name]).sum()) for name in first)
    return both / either if either else 1.0


def corrected_overlap(first: Masks, second: Masks) -> float:
    """Agreement of the kept weights beyond chance: 1 for equal masks, 0 for random ones with these counts in each layer.

    (I - E) / (K - E), with I the weights that both keep, E those that random masks with the same counts in each layer share on
    average, and K the mean number of kept weights: Cohen's kappa, with the chance of each layer. Below 0 if the masks agree
    less than by chance; 1 if every layer is full or empty in both.
    """
    both = expected = kept = 0.0
    for name in first:
        n, m = int(first[name].sum()), int(second[name].sum())
        both += int((first[name] & second[name]).sum())
        expected += n * m / first[name].numel()
        kept += (n + m) / 2
    return (both - expected) / (kept - expected) if kept > expected else 1.0


def layer_density_similarity(first: Masks, second: Masks) -> float:
    """1 - mean over layers of |n1 - n2| / (n1 + n2), where n is the number of kept weights of a layer.

    Source: Psi of Shen et al., "When to Prune?", arXiv:2110.12007, equation 5, with kept weights in the place of neurons. A
    layer without kept weights in both masks counts as equal.
    """
    counts = [(int(first[name].sum()), int(second[name].sum())) for name in first]
    return 1 - sum(abs(n - m) / (n + m) if n + m else 0.0 for n, m in counts) / len(counts)


def early_pruning_indicator(history: Sequence[Masks], last: int = 5) -> float:
    """Mean `layer_density_similarity` of the newest mask with up to `last` earlier ones; near 1 once the densities are stable.

    Source: EPI of Shen et al., arXiv:2110.12007, equation 6; the number of earlier masks is not the paper's.
    """
    *earlier, newest = history[-last - 1 :]
    assert earlier, "needs at least two masks"
    return sum(layer_density_similarity(newest, mask) for mask in earlier) / len(earlier)
