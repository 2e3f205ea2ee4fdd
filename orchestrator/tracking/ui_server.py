"""The MLflow UI on the store of a sweep."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.request import urlopen

from orchestrator.errors import SetupError
from orchestrator.tracking.client import MLFLOW_ENVIRONMENT, SQLITE, TrackingTarget, database_file, is_server, print_on_stderr
from orchestrator.tracking.database_file import open_read_only
from orchestrator.tracking.database_locations import correct_locations, follow_storage
from orchestrator.tracking.error_hints import database_error

HOST = "127.0.0.1"
ALLOWED_HOSTS = "127.0.0.1:*,localhost:*"  # else a page of the web could reach the server under a name of its own
START_TIMEOUT_S = 180.0  # a busy machine imports slowly, and a new database is migrated first


@contextmanager
def serve(target: TrackingTarget, port: int = 5000) -> Iterator[str]:
    """The base URL of the UI: a server's own address, or for a database a server on loopback that ends with the block.

    Args:
        port: 0 takes a free one.

    Raises:
        SetupError: the port is taken, or the server does not come up.
    """
    if is_server(target.uri):
        yield target.uri
        return
    port = _free_port(port)
    with tempfile.TemporaryDirectory(prefix="drive-sweep-ui-") as scratch, tempfile.TemporaryFile() as log:
        readable = served_database(target, Path(scratch))
        command = [sys.executable, "-P", "-m", "mlflow", "server", "--backend-store-uri", readable]
        command += ["--host", HOST, "--port", str(port), "--workers", "1", "--allowed-hosts", ALLOWED_HOSTS]
        if target.artifact_root:
            command += ["--default-artifact-root", target.artifact_root]
        else:
            command += ["--artifacts-destination", str(Path("mlartifacts").absolute())]  # where MLflow puts them by itself
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_server_environment(),
            cwd=scratch,  # uvicorn puts the current folder before all modules
            start_new_session=True,
        )
        try:
            _wait_until_up(server, f"http://{HOST}:{port}", log)
            yield f"http://{HOST}:{port}"
        finally:
            _end(server)


def served_database(target: TrackingTarget, scratch: Path) -> str:
    """The URI that is served: a storage's database follows the storage; where it cannot be written, a copy in `scratch` does.

    Raises:
        SetupError: there is no database, or it cannot be read.
    """
    file = database_file(target.uri)
    if target.storage is None or file is None:
        return target.uri
    if not file.exists():
        raise SetupError(
            f"storage {target.storage} must have MLflow's database {file.name}, got none",
            "`sync` of a sweep creates it",
            code="tracking-database-missing",
        )
    if is_writable(file):
        follow_storage(Path(target.storage), print_on_stderr)
        return target.uri
    copy = scratch / file.name
    try:
        with closing(open_read_only(file)) as original, closing(sqlite3.connect(copy)) as target_database:
            original.backup(target_database)
    except sqlite3.Error as error:
        raise database_error(file, error) from error
    correct_locations(copy, Path(target.storage))
    print_on_stderr(f"{file} cannot be written by this user: a copy of it is shown, and changes in the UI are not kept")
    return f"{SQLITE}{copy}"


def is_writable(file: Path) -> bool:
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def _server_environment() -> dict[str, str]:
    """The user's environment, without variables that configure a server, such as allowed hosts or where artifacts are."""
    of_servers = (
        "MLFLOW_SERVER_",
        "MLFLOW_BACKEND_STORE_URI",
        "MLFLOW_ARTIFACT",
        "MLFLOW_DEFAULT_ARTIFACT",
        "_MLFLOW",
        "MLFLOW_AUTH",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(of_servers)}
    return MLFLOW_ENVIRONMENT | kept | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONSAFEPATH": "1"}


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SetupError(
                f"port {port} is taken: {error.strerror}", "give another with --port", code="port-taken"
            ) from error
        return int(probe.getsockname()[1])


def _wait_until_up(server: subprocess.Popen[bytes], base: str, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(URLError, OSError), urlopen(f"{base}/health", timeout=2):
            return
        time.sleep(0.1)
    log.seek(0)
    output = log.read().decode(errors="replace").strip().splitlines()
    ended = server.poll() is not None
    reason = f"ended with code {server.returncode}" if ended else f"did not answer in {START_TIMEOUT_S:.0f} s"
    raise SetupError(f"the MLflow server {reason}: {output[-1] if output else 'no output'}", code="tracking-server-failed")


def _end(server: subprocess.Popen[Any]) -> None:
    """Ends the server with its workers, which are in its process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)
