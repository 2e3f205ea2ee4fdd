"""Which network interface gloo and NCCL use."""

from __future__ import annotations

import os
import socket

import pytest

from trainables.errors import ConfigError
from trainables.runtime.network_interface import use_interface_of

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # to be restored
        monkeypatch.delenv(name)


def test_own_address_is_that_of_its_interface_alone() -> None:
    """Without "=" NCCL would take all whose names begin so."""
    use_interface_of("127.0.0.1")
    assert [os.environ[name] for name in VARIABLES] == ["lo", "=lo"]


def test_another_host_is_reached_over_the_interface_that_routes_to_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of a network for documentation
        except OSError:
            pytest.skip("no route leads out of this machine")
    use_interface_of("192.0.2.1")
    chosen = os.environ["GLOO_SOCKET_IFNAME"]
    assert chosen in {name for _, name in socket.if_nameindex()} - {"lo"}


def test_choice_of_the_user_stays_and_an_address_of_another_kind_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    use_interface_of("::1")
    assert not set(VARIABLES) & set(os.environ)
    present = ",".join(name for _, name in socket.if_nameindex())
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", present)
    use_interface_of("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == present


def test_choice_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo,nosuch0")
    with pytest.raises(
        ConfigError, match=r"GLOO_SOCKET_IFNAME must name network interfaces of this host, .*lo.*, got lo,nosuch0"
    ):
        use_interface_of("127.0.0.1")
