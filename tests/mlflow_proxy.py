"""A proxy in front of a real MLflow server that is slow, refuses, or is full, as a test wants."""

import base64
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server, unless it answers them itself.

    Attributes:
        delay_s: Before each answer.
        password: ``user:password`` that it asks for, if it asks.
        full: Answer every upload with 500, as a server does whose disk is full.
        seen: Requests so far.
        closing: Set when the test is over; what was delayed is dropped then.
    """

    daemon_threads = True

    def __init__(self, target_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target_port = target_port
        self.delay_s = 0.0
        self.password: str | None = None
        self.full = False
        self.seen = 0
        self.closing = threading.Event()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def uri(self) -> str:
        """Address, without a password."""
        return f"http://127.0.0.1:{self.port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        else:
            body = self.rfile.read(length)
        self.server.seen += 1
        if self.server.closing.wait(self.server.delay_s):
            self.close_connection = True
            return
        refusal = self._refusal()
        if refusal is not None:
            self._send(refusal, [("WWW-Authenticate", "Basic")], b"refused")
            return
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in {*_HOP_BY_HOP, "host"}
        }
        with closing(HTTPConnection("127.0.0.1", self.server.target_port)) as onward:
            onward.request(self.command, self.path, body=body, headers=headers)
            answer = onward.getresponse()
            self._send(answer.status, answer.getheaders(), answer.read())

    def _refusal(self) -> int | None:
        wanted = self.server.password
        if wanted is not None:
            told = "Basic " + base64.b64encode(wanted.encode()).decode()
            if self.headers.get("Authorization") != told:
                return 401
        return 500 if self.server.full and self.command == "PUT" else None

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


@contextmanager
def a_proxy(target_port: int) -> Iterator[Proxy]:
    """Run a proxy in front of a server of this machine."""
    with Proxy(target_port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.closing.set()
            proxy.shutdown()
            thread.join()
