"""The network interface over which the workers of a trial talk: that of the first worker's address."""

from __future__ import annotations

import os
import socket
import struct

from trainables.errors import ConfigError


def use_interface_of(address: str) -> None:
    """Has gloo and NCCL connect through the network interface with that address, or the one that routes to it.

    What the user has chosen stays.

    Raises:
        ConfigError: the user has chosen one that this host does not have, of which gloo would not tell the first worker.
    """
    own = _own_address_towards(address)
    interfaces = socket.if_nameindex()
    chosen, present = os.environ.get("GLOO_SOCKET_IFNAME", ""), [name for _, name in interfaces]
    if not set(filter(None, chosen.split(","))) <= set(present):
        raise ConfigError(
            f"GLOO_SOCKET_IFNAME must name network interfaces of this host, {', '.join(present)}, got {chosen}",
            "unset it: workers find the one that leads to the first of them",
        )
    for _, name in interfaces:
        if _address_of_interface(name) == own or (name == "lo" and own.startswith("127.")):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # with "=" this one, without it all whose names begin so
            return


def _own_address_towards(address: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing
        try:
            probe.connect((address, 9))
        except OSError:
            return address
        return str(probe.getsockname()[0])


def _address_of_interface(name: str) -> str:
    """Its IPv4 address; empty without one."""
    import fcntl

    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), 0x8915, request)  # SIOCGIFADDR
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])
