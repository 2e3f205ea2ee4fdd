"""Two processes for the tests of several workers, started when the first test of a file needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trainables.worker.local_peers import LocalPeers


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalPeers]:
    peers = LocalPeers(2)
    yield peers
    peers.end()
