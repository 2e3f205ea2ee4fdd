"""A server's front door that has moods: it hands requests on, or is slow, fails, says nothing, hangs up, or is not there."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

SLOW_S = 5.0
POLL_S = 0.05
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


class Mood(StrEnum):
    """How it answers."""

    WELL = "well"
    SLOW = "slow"
    ERRORS = "500s"
    SILENT = "half-open"
    CUT = "cut off"  # what was asked for is done, the answer is lost half-way
    DOWN = "down"


class Proxy:
    """A proxy on loopback in front of one HTTP server.

    Attributes:
        uri: its address.
        calls: requests so far.
        disturbed: requests that met another mood than `WELL`.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.mood = Mood.WELL
        self.calls = self.disturbed = 0
        self._listen(0)
        self.port = self._server.server_address[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def set(self, mood: Mood) -> None:
        """Changes the mood, for requests that wait for an answer too."""
        before, self.mood = self.mood, mood
        if mood is Mood.DOWN and before is not Mood.DOWN:
            self._stop_listening()
        elif before is Mood.DOWN and mood is not Mood.DOWN:
            self._listen(self.port)

    def close(self) -> None:
        if self.mood is not Mood.DOWN:
            self._stop_listening()

    def _listen(self, port: int) -> None:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", port), handler)
        Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True).start()

    def _stop_listening(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def proxy_of(upstream: str) -> Iterator[Proxy]:
    """A proxy in front of a server for as long as the block lasts."""
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _hand_on(self) -> None:
        body = self._body()
        proxy = self.proxy
        mood = proxy.mood
        proxy.calls += 1
        proxy.disturbed += mood is not Mood.WELL
        if mood is Mood.SLOW:
            time.sleep(SLOW_S)
        while mood is Mood.SILENT and proxy.mood is Mood.SILENT:
            time.sleep(POLL_S)
        if mood in (Mood.SILENT, Mood.DOWN):
            self.close_connection = True
        elif mood is Mood.ERRORS:
            self._answer(500, [("Content-Type", "text/plain")], b"a fault")
        else:
            status, headers, content = self._ask(body)
            self._answer(status, headers, content, cut=mood is Mood.CUT)

    def _body(self) -> bytes:
        """The body of the request, also of one that comes in chunks, as uploads to an object store do."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        try:
            asked = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            connection.request(self.command, self.path, body or None, asked)
            answer = connection.getresponse()
            content = answer.read()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
            if self.command == "HEAD":
                headers.append(("Content-Length", answer.getheader("Content-Length", "0")))
            return answer.status, headers, content
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            self.send_header("Content-Length", str(len(content)))
        with suppress(OSError):
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _hand_on  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""
