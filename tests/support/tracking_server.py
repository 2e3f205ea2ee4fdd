"""A tracking server as a team has it: MLflow with a login, on a PostgreSQL of its own, artifacts on an S3 API; all on loopback.

The server is started by cluster/mlflow/serve.sh, as it is.

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

from tests import ROOT
from tests.support.cli import free_port

PASSWORD = "the-login-that-nobody-may-see"
S3_SECRET = "the-key-that-nobody-may-see"
DATABASE_PASSWORD = "p%25ss%2Fword-that-nobody-may-see"  # as a URI writes it: p%ss/word...
SERVE = ROOT / "cluster/mlflow/serve.sh"
DATABASE_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@dataclass(frozen=True)
class Server:
    """A running server: its address, the environment of those who may use it, its process, and the database behind it."""

    uri: str
    login: dict[str, str]
    pid: int
    database: str


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
        database_uri = f"postgresql://mlflow:{DATABASE_PASSWORD}@127.0.0.1:{database}/mlflow"
        environment = os.environ | {
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": "mlflow",
            "AWS_SECRET_ACCESS_KEY": S3_SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{objects}",
            "MLFLOW_BACKEND_STORE_URI": database_uri,
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow/artifacts",
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-a-test",
            "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1:*",
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(port),
            "MLFLOW_WORKERS": "2",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        _make_bucket(environment)
        pid = running.enter_context(_process([str(SERVE)], folder / "mlflow.log", environment))
        uri = f"http://127.0.0.1:{port}"
        wait_until_up(f"{uri}/health")
        yield Server(uri, {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}, pid, database_uri)


def wait_until_up(url: str, timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(OSError), urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(f"nothing answers at {url}")


@contextmanager
def _database(folder: Path, port: int) -> Iterator[None]:
    """PostgreSQL with an empty database."""
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
        ask += ["-c", "CREATE DATABASE mlflow"]
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


@contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[int]:
    """The process and its workers, until the block ends."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        yield process.pid
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):  # SIGINT: the quick way to end PostgreSQL
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
