"""Servers on loopback for the engine's tests, and what is done with an engine there."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator

from jobs.engine import CurlEngine, Result

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
PATH = "/wp-cron.php?doing_wp_cron"

Handler = Callable[[socket.socket], object]
Serve = Callable[..., int]


@contextlib.contextmanager
def serving() -> Iterator[Serve]:
    """Starts servers: `serve(handler, host="127.0.0.1", context=None) -> port`; a thread for each connection."""
    opened: list[socket.socket] = []

    def run(listener: socket.socket, handler: Handler, context: ssl.SSLContext | None) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            opened.append(connection)
            threading.Thread(target=handle, args=(connection, handler, context), daemon=True).start()

    def handle(connection: socket.socket, handler: Handler, context: ssl.SSLContext | None) -> None:
        with contextlib.suppress(OSError), connection:
            peer = context.wrap_socket(connection, server_side=True) if context else connection
            with peer:
                opened.append(peer)
                handler(peer)

    def start(handler: Handler, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family, backlog=512)
        opened.append(listener)
        threading.Thread(target=run, args=(listener, handler, context), daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for each in opened:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """The port of a listener whose full backlog drops every new connection (Linux)."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def finish(engine: CurlEngine, count: int = 1) -> list[Result]:
    results: list[Result] = []
    end = time.monotonic() + 20
    while len(results) < count:
        assert time.monotonic() < end, f"{len(results)} of {count} ended"
        results += engine.poll(0.5)
    return results


def trigger(engine: CurlEngine, port: int, **options: str) -> Result:
    """One trigger to 127.0.0.1, from start to end."""
    scheme, host = options.get("scheme", "http"), options.get("host", "site.example")
    engine.start("tag", f"{scheme}://{host}:{port}{PATH}", options.get("address", "127.0.0.1"))
    (result,) = finish(engine)
    return result


def request(peer: socket.socket) -> bytes:
    """Read one request head; empty if the peer is gone."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = peer.recv(4096)
        if not data:
            return head
        head += data
    return head


def answering(*answers: bytes) -> Handler:
    """A handler that answers the first requests of a connection so, and then closes it."""

    def handler(peer: socket.socket) -> None:
        for answer in answers:
            if request(peer):
                peer.sendall(answer)

    return handler


def recording(heads: list[bytes], answer: bytes = OK) -> Handler:
    def handler(peer: socket.socket) -> None:
        while head := request(peer):
            heads.append(head)
            peer.sendall(answer)

    return handler


def reset(peer: socket.socket) -> None:
    """Close with a TCP reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def stay(peer: socket.socket) -> None:
    """Read, and say nothing until the other side hangs up."""
    while peer.recv(4096):
        pass
