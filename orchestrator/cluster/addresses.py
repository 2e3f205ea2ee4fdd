"""Addresses of clusters: a local Ray, a Jobs API or a cluster to join, and whether something listens there."""

from __future__ import annotations

import os
import socket

from orchestrator.errors import SetupError

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def require_cluster_reachable(address: str) -> None:
    """Raises SetupError if nothing listens at HOST:PORT; Ray would retry for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        return
    hint = "give the address of a running head with --address or RAY_ADDRESS, or neither for a local Ray"
    require_reachable(host, int(port), f"the Ray cluster at {address}", hint)


def require_reachable(host: str, port: int, server: str, hint: str) -> None:
    """Raises SetupError if nothing listens at this port; `server` names it in the message."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupError(f"cannot connect to {server}: {reason}", hint, code="cluster-unreachable") from error


def is_local_ray(address: str | None) -> bool:
    """Whether neither the argument nor RAY_ADDRESS names an existing cluster."""
    return (address or os.environ.get("RAY_ADDRESS")) in (None, "", "local")


def is_jobs_api(address: str | None) -> bool:
    """Whether an address is that of a dashboard with a Jobs API, and not HOST:PORT of a cluster that a driver joins."""
    return bool(address) and str(address).startswith(("http://", "https://"))


def jobs_api_of_environment() -> str | None:
    """The dashboard that the environment names."""
    return next((os.environ[name] for name in ADDRESS_VARIABLES if is_jobs_api(os.environ.get(name))), None)
