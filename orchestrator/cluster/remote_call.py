"""A call on one node of the cluster, and what its error says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def call_on(node_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Reference to the answer of a call on that node; it takes no CPU from trials."""
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(function).remote(*arguments)


def reason_of(error: Exception) -> str:
    """In one line why a call on a node failed."""
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
