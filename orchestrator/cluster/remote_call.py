"""A call on one node of the cluster, and the reason why it failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.wording import last_line


def call_on(node_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The reference to the result of a call on that node; it takes no CPU from trials."""
    return ray.remote(num_cpus=0, max_retries=0, **only_on(node_id))(function).remote(*arguments)


def only_on(node_id: str) -> dict[str, Any]:
    """The option that binds a call or an actor to that node."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def is_answered(call: Any) -> bool:
    """Whether the result of a call is there, or its failure."""
    return bool(ray.wait([call], timeout=0)[0])


def result_of(call: Any) -> Any:
    """The result of a call; waits for it, and raises the error with which it failed."""
    return ray.get(call)


def reason_of(error: Exception) -> str:
    """Why a call on a node failed, in one line."""
    return last_line(getattr(error, "cause", None) or error)
