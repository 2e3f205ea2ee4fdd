"""What MLflow, SQLite and the file system raise is reported with the fix that fits."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import SetupError
from orchestrator.tracking.client import TrackingTarget, connect
from orchestrator.tracking.error_hints import tracking_error

HTTP = "http://mlflow.lab:5000"
SQLITE = "sqlite:////data/mlflow.db"
REASONS = {  # what is raised -> the store and the fix
    "(sqlite3.OperationalError) database is locked\n[SQL: INSERT INTO x]": (SQLITE, "end the process that holds its lock"),
    "(sqlite3.OperationalError) attempt to write a readonly database": (SQLITE, "make it writable for this user"),
    "(sqlite3.OperationalError) unable to open database file": (SQLITE, "make it writable for this user"),
    "(sqlite3.OperationalError) database or disk is full": (SQLITE, "make room on that disk"),
    "Detected out-of-date database schema (found version a, but expected b)": (SQLITE, "use the MLflow that made it"),
    "No module named 'psycopg'": ("postgresql://db/mlflow", "install the Python package of psycopg here"),
    "password authentication failed for user": ("postgresql://db/mlflow", "export the login"),
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed": (HTTP, "MLFLOW_TRACKING_SERVER_CERT_PATH"),
    "[SSL: WRONG_VERSION_NUMBER] wrong version number": (HTTP, "write http:// if it has no TLS"),
    "Max retries exceeded (Caused by NameResolutionError('Failed to resolve'))": (HTTP, "correct the host's name"),
    "Max retries exceeded (Caused by ProxyError('Cannot connect to proxy.'))": (HTTP, "list mlflow.lab:5000 in NO_PROXY"),
    "HTTPConnectionPool: Read timed out. (read timeout=20)": (HTTP, "overloaded, or a firewall"),
    "Max retries exceeded (Caused by NewConnectionError: Connection refused)": (HTTP, "start the server"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_the_fix_fits_the_cause(reason: str) -> None:
    uri, fix = REASONS[reason]
    error = tracking_error(uri, RuntimeError(reason))
    message = str(error)
    assert error.code == "tracking-unavailable"
    assert fix in error.hint
    assert "[SQL" not in message
    assert message.endswith("or give another with --tracking-uri")
    assert ("login" in message) == ("login" in fix)


@pytest.mark.parametrize(("number", "fix"), [(13, "make /data/x writable for this user"), (28, "make room on that disk")])
def test_files_that_cannot_be_written_are_named(number: int, fix: str) -> None:
    message = str(tracking_error(HTTP, OSError(number, "refused", "/data/x")))
    assert fix in message
    assert "login" not in message


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server on loopback that answers everything so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "fix"),
    [
        (403, b"Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts that lists 127.0.0.1:"),
        (403, b"Permission denied", "ask whoever runs the server for access"),
        (401, b"You are not authenticated", "export the login that it asks for"),
        (404, b"<html>no such page</html>", "correct the address: that of MLflow itself"),
        (500, b"Internal error", "look into the server's log"),
        (200, b"<html>a web page</html>", "see whether MLflow runs there"),
    ],
)
@pytest.mark.server
def test_each_answer_of_a_server_has_a_hint(status: int, body: bytes, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with answering(status, body) as uri, pytest.raises(SetupError) as raised:
        connect(TrackingTarget(uri=uri, experiment="x", artifact_root=None))
    assert fix in str(raised.value)
    assert ("login" in str(raised.value)) == (status in (401, 403) and b"Host" not in body)


def test_folder_in_place_of_the_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(SetupError, match=r"tracking sqlite:.* cannot be used"):
        connect(TrackingTarget(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment="x", artifact_root=None))
