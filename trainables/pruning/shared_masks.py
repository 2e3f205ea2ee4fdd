"""The masks that all workers of a trial use: those of the first, checked on each."""

from __future__ import annotations

import hashlib

import numpy as np

from trainables.pruning.masks import Masks, flattened
from trainables.runtime.group import Group


def masks_of_first(masks: Masks, group: Group) -> Masks:
    """The masks of the first worker, on every worker; unchanged with one.

    Scores that each worker computes by itself may differ in their last bits on a GPU.

    Raises:
        RuntimeError: a worker has others afterwards.
    """
    if group.workers == 1:
        return masks
    group.take_first_(list(masks.values()))
    group.require_same("the masks", hashlib.sha256(np.packbits(flattened(masks).cpu().numpy()).data).hexdigest())
    return masks
