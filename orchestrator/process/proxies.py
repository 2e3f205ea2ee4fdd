"""Proxies of the environment: loopback bypasses them, and messages about failed connections name them."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from urllib.parse import urlsplit

from orchestrator.uris import redacted

LOOPBACK = ("localhost", "127.0.0.1", "::1", "127.0.0.0/8")
GRPC = "grpc_proxy"
EXEMPT = ("NO_PROXY", "no_proxy", "no_grpc_proxy")  # the last one is for gRPC, by which Ray connects to a cluster


def bypass_proxies_for_loopback() -> None:
    """Exempts this machine from proxies, if there are any, in this process and its children.

    The processes of a local Ray talk to each other at the machine's address.
    """
    if sys.platform == "linux" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return  # as in most places; looking further takes an import
    from urllib.request import getproxies

    if not getproxies() and not os.environ.get(GRPC):
        return
    before = {name: os.environ.get(name, "") for name in EXEMPT}
    shared = before["no_proxy"] or before["NO_PROXY"]  # if both are set, lower case counts
    for name in EXEMPT:
        if name == "no_grpc_proxy" and not before[name]:
            continue  # without it gRPC reads no_proxy
        exempt = [*LOOPBACK, *_local_addresses()]
        hosts = [host for host in (before[name] or shared).split(",") if host.strip()]
        if "*" not in hosts:
            os.environ[name] = ",".join([*hosts, *(host for host in exempt if host not in hosts)])


def _local_addresses() -> list[str]:
    """The address from which this machine reaches others, as Ray finds it; sends nothing."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("8.8.8.8", 80))
        return [str(probe.getsockname()[0])]
    return []


def proxy_of(address: str) -> str:
    """The proxy for requests to this URL, without its password; empty if they go directly."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(address)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or not parts.hostname or proxy_bypass(parts.hostname):
        return ""
    return redacted(proxy)


def proxy_hint(address: str) -> str:
    """Text for a message about a failed connection, which names the proxy; empty without one."""
    proxy = proxy_of(address)
    if not proxy:
        return ""
    host = urlsplit(address).hostname
    return f" (through the proxy {proxy} of the environment; `export NO_PROXY={host}` goes there directly)"
