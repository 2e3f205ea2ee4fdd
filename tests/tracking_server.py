"""A tracking server as a team has it: MLflow with a login, on a PostgreSQL of its own, artifacts on an S3 API; all on loopback.

Needs Debian's postgresql, and root where a server of the database must not run as root (`why_not` tells).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from tests.sweeps import free_port

PASSWORD = "the-login-that-nobody-may-see"
S3_SECRET = "the-key-that-nobody-may-see"
DATABASE_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@dataclass(frozen=True)
class Server:
    """A running server: its address, and the environment of those who may use it."""

    uri: str
    login: dict[str, str]


def why_not() -> str:
    """Why no such server can run here; empty if it can."""
    if not DATABASE_BINARIES or shutil.which("setpriv") is None:
        return "postgresql is not installed"
    return "" if os.geteuid() == 0 else "PostgreSQL is started under its own user, which takes root"


@contextmanager
def tracking_server(folder: Path) -> Iterator[Server]:
    """A server for as long as the block lasts; its files are below `folder`, which all users may enter."""
    database, objects, port = free_port(), free_port(), free_port()
    with ExitStack() as running:
        running.enter_context(_database(folder / "postgres", database))
        running.enter_context(_objects(folder, objects))
        environment = os.environ | {
            "AWS_ACCESS_KEY_ID": "mlflow",
            "AWS_SECRET_ACCESS_KEY": S3_SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{objects}",
            "MLFLOW_AUTH_CONFIG_PATH": str(_login_settings(folder, database)),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-a-test",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        _make_bucket(environment)
        store = f"postgresql+psycopg://mlflow@127.0.0.1:{database}/mlflow"
        mlflow = [sys.executable, "-m", "mlflow"]
        subprocess.run([*mlflow, "db", "upgrade", store], check=True, env=environment, capture_output=True)
        server = [*mlflow, "server", "--app-name", "basic-auth", "--backend-store-uri", store]
        server += ["--artifacts-destination", "s3://mlflow/artifacts", "--host", "127.0.0.1", "--port", str(port)]
        server += ["--workers", "2", "--uvicorn-opts", "--loop uvloop", "--allowed-hosts", "127.0.0.1:*"]
        running.enter_context(_process(server, folder / "mlflow.log", environment))
        uri = f"http://127.0.0.1:{port}"
        wait_until_up(f"{uri}/health")
        yield Server(uri, {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD})


def wait_until_up(url: str, timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(OSError), urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(f"nothing answers at {url}")


@contextmanager
def _database(folder: Path, port: int) -> Iterator[None]:
    """PostgreSQL with empty databases for runs and for users."""
    folder.mkdir()
    shutil.chown(folder, "postgres")
    binaries = DATABASE_BINARIES[-1]
    as_its_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    subprocess.run(
        [*as_its_user, str(binaries / "initdb"), "-D", str(folder), "-U", "mlflow", "--auth=trust", "-N"],
        check=True,
        capture_output=True,
    )
    server = [*as_its_user, str(binaries / "postgres"), "-D", str(folder), "-p", str(port), "-k", "", "-h", "127.0.0.1", "-F"]
    with _process(server, folder.parent / "postgres.log", dict(os.environ)):
        ask = [str(binaries / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "-d", "postgres"]
        ask += ["-c", "CREATE DATABASE mlflow", "-c", "CREATE DATABASE users"]
        deadline = time.monotonic() + 60
        while subprocess.run(ask, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.2)
        yield


@contextmanager
def _objects(folder: Path, port: int) -> Iterator[None]:
    moto = str(Path(sys.executable).with_name("moto_server"))
    with _process([moto, "-H", "127.0.0.1", "-p", str(port)], folder / "objects.log", dict(os.environ)):
        wait_until_up(f"http://127.0.0.1:{port}/moto-api/")
        yield


def _make_bucket(environment: dict[str, str]) -> None:
    script = "import boto3, os; boto3.client('s3', endpoint_url=os.environ['MLFLOW_S3_ENDPOINT_URL'])"
    script += ".create_bucket(Bucket='mlflow')"
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def _login_settings(folder: Path, port: int) -> Path:
    file = folder / "login.ini"
    file.write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\nauth_cache_ttl_seconds = 60\n"
        f"database_uri = postgresql+psycopg://mlflow@127.0.0.1:{port}/users\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return file


@contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[None]:
    """The process and its workers, until the block ends."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):  # SIGINT: the quick way to end PostgreSQL
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
