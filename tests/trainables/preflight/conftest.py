"""The module that holds the network under examination."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support.examined_networks import MODULE


@pytest.fixture(autouse=True)
def module() -> Iterator[ModuleType]:
    new_module = ModuleType(MODULE)
    sys.modules[MODULE] = new_module
    yield new_module
    del sys.modules[MODULE]
