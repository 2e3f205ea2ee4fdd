"""A proxy hands requests on as they are, and disturbs them as its mood says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from tests.chaos import proxy as proxies
from tests.chaos.proxy import Mood, Proxy, proxy_of


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked, and keeps it."""

    protocol_version = "HTTP/1.1"
    asked: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(body)
        self.send_response(201)
        self.send_header("X-Path", self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[tuple[Proxy, list[bytes]]]:
    asked: list[bytes] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Echo,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with proxy_of(f"http://127.0.0.1:{server.server_address[1]}") as proxy:
        yield proxy, asked
    server.shutdown()
    server.server_close()


def post(proxy: Proxy, body: bytes, timeout_s: float = 10) -> tuple[int, str, bytes]:
    with urlopen(Request(f"{proxy.uri}/a?b=c", data=body, method="POST"), timeout=timeout_s) as answer:
        return answer.status, answer.headers["X-Path"], answer.read()


def test_it_hands_on_and_heals(echo: tuple[Proxy, list[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, asked = echo
    monkeypatch.setattr(proxies, "SLOW_S", 0.3)
    content = bytes(range(256)) * 400
    assert post(proxy, content) == (201, "/a?b=c", content)
    with closing(HTTPConnection("127.0.0.1", proxy.port)) as connection:
        connection.request("POST", "/chunks", iter([b"in ", b"chunks"]), encode_chunked=True)
        assert connection.getresponse().read() == b"in chunks"
    assert proxy.disturbed == 0
    errors = {
        Mood.ERRORS: HTTPError,
        Mood.CUT: IncompleteRead,
        Mood.SILENT: TimeoutError,
        Mood.DOWN: URLError,
    }
    for mood, error in errors.items():
        proxy.set(mood)
        before = len(asked)
        with pytest.raises(error):
            post(proxy, b"body" + mood.encode(), timeout_s=0.3)
        assert len(asked) - before == (mood is Mood.CUT), "only a cut off answer is to something that was done"
        proxy.set(Mood.WELL)
        assert post(proxy, b"again") == (201, "/a?b=c", b"again")
    proxy.set(Mood.SLOW)
    began = time.monotonic()
    assert post(proxy, b"late")[2] == b"late"
    assert time.monotonic() - began >= 0.3


def test_who_waits_at_a_half_open_door_is_sent_away_when_it_heals(echo: tuple[Proxy, list[bytes]]) -> None:
    proxy, _ = echo
    proxy.set(Mood.SILENT)
    timer = threading.Timer(0.2, proxy.set, (Mood.WELL,))
    timer.start()
    with pytest.raises(RemoteDisconnected):
        post(proxy, b"body")
    timer.join()
    assert proxy.disturbed == 1
