"""A web server on loopback that answers as a test says."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Handler(BaseHTTPRequestHandler):
    """Answers GET and POST by the server's `answer`, and remembers what was asked."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.asked.append((self.path, dict(self.headers)))
        # The client hangs up in some tests.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.server.answer(self)

    do_POST = do_GET  # noqa: N815  http.server's name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Keeps the test's output clean."""

    def reply(self, body: bytes | str, content_type: str = "application/json", status: int = 200, **more: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else body.encode())

    def drip(self, piece: bytes) -> None:
        """Sends `piece` again and again until the client hangs up or the test ends."""
        assert isinstance(self.server, Server)
        while not self.server.stop.wait(0.02):
            self.wfile.write(piece)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: str, answer: Callable[[Handler], None], tls: ssl.SSLContext | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), Handler)
        self.answer = answer
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.stop = threading.Event()
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        host = f"[{address}]" if ":" in address else address
        self.url = f"{'https' if tls else 'http'}://{host}:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that the client broke off is what some tests want."""


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers with this function, or with this JSON."""
    started: list[tuple[Server, threading.Thread]] = []

    def serve(
        answer: Callable[[Handler], None] | Any, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> Server:
        answering = answer if callable(answer) else lambda handler: handler.reply(json.dumps(answer))
        server = Server(address, answering, tls)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield serve
    for server, thread in started:
        server.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()
