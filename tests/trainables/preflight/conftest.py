"""The module that holds the network under examination."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support.examined_networks import MODULE


@pytest.fixture(autouse=True)
def module() -> Iterator[ModuleType]:
    made = ModuleType(MODULE)
    sys.modules[MODULE] = made
    yield made
    del sys.modules[MODULE]
