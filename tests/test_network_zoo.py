"""Every network of the zoo but the large ones, each with one method: right, or refused before training. All: tests/proofs."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from tests.network_zoo import VISION, ZOO
from tests.zoo_trials import outcome
from trainables.method_config import Method

METHODS: tuple[Method, ...] = get_args(Method)
SMALL = [name for name in ZOO if name.removeprefix("torchvision_") not in VISION]
# What no method can prune, or what this one cannot.
REFUSED: dict[str, str] = json.loads("{}")


def method_of(name: str) -> Method:
    """Methods in turn, so that each meets networks of several kinds."""
    return METHODS[SMALL.index(name) % len(METHODS)]


def test_the_zoo_has_every_kind() -> None:
    assert len(ZOO) >= 60
    assert {method_of(name) for name in SMALL} == set(METHODS)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_is_pruned_rightly_or_refused_before_training(name: str) -> None:
    found = outcome(name, method_of(name))
    assert found.kind == ("refused" if name in REFUSED else "right"), f"{name} with {found.method}: {found.message}"
    assert REFUSED.get(name, "") in found.message
