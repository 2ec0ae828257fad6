"""The engine's limits: time, bytes, triggers in flight and connections, and how waiting for it ends."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from jobs.engine import CurlEngine
from tests.unit.loopback import (
    CLOSE,
    OK,
    PATH,
    Serve,
    answering,
    finish,
    recording,
    request,
    serving,
    silent,
    stay,
    trigger,
)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with serving() as serve:
        yield serve


@pytest.fixture
def engine() -> Iterator[CurlEngine]:
    with contextlib.closing(CurlEngine(timeout=10, user_agent="all-sites-cron/3.0.0")) as engine:
        yield engine


@pytest.fixture
def hasty() -> Iterator[CurlEngine]:
    """One that gives up after 0.3 s."""
    with contextlib.closing(CurlEngine(timeout=0.3, user_agent="x")) as engine:
        yield engine


# Time and bytes


def test_no_answer_in_time_is_timeout(hasty: CurlEngine, serve: Serve) -> None:
    """The request was sent: the site may be working on it, so trying again is not for the engine to suggest."""
    result = trigger(hasty, serve(stay))
    assert (result.status, result.error, result.passing) == (0, "timeout", False)
    assert result.seconds > 0.25


def test_an_answer_without_end_is_timeout(hasty: CurlEngine, serve: Serve) -> None:
    """A body that drips does not hold the slot longer than the timeout."""

    def drip(peer: socket.socket) -> None:
        request(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            peer.sendall(b".")
            time.sleep(0.01)

    assert trigger(hasty, serve(drip)).error == "timeout"


def test_a_handshake_that_hangs_is_tls(hasty: CurlEngine, serve: Serve) -> None:
    """Connected but nothing sent: it may pass."""
    result = trigger(hasty, serve(stay), scheme="https")
    assert (result.error, result.passing) == ("tls", True)


def test_a_connect_that_hangs_is_connect(hasty: CurlEngine) -> None:
    """A listener whose backlog is full drops the SYN: no connection within the timeout."""
    with silent() as port:
        result = trigger(hasty, port)
    assert (result.error, result.passing) == ("connect", True)


@pytest.mark.parametrize("length", [pytest.param(b"Content-Length: 67108864\r\n", id="announced"), b""])
def test_64_mib_of_body_are_not_read(engine: CurlEngine, serve: Serve, length: bytes) -> None:
    """After 64 KiB at the latest the connection is cut; status and headers count."""
    written = 0
    over = threading.Event()

    def flood(peer: socket.socket) -> None:
        nonlocal written
        request(peer)
        peer.sendall(b"HTTP/1.1 503 Busy\r\n" + length + b"Retry-After: 12\r\n\r\n")
        try:
            while written < 67108864:
                written += peer.send(bytes(65536))
        finally:
            over.set()

    result = trigger(engine, serve(flood))
    assert (result.status, result.error, result.retry_after) == (503, None, 12)
    assert over.wait(10)
    assert written < 16 * 1024 * 1024  # what the kernel's buffers take


def test_64_kib_of_body_are_read_and_the_connection_kept(engine: CurlEngine, serve: Serve) -> None:
    """Exactly the cap is no failure."""
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + bytes(65536)
    connections: list[socket.socket] = []

    def handler(peer: socket.socket) -> None:
        connections.append(peer)
        answering(body, body)(peer)

    port = serve(handler)
    assert [trigger(engine, port).status, trigger(engine, port).status] == [200, 200]
    assert len(connections) == 1


# Many at once


def test_200_are_in_flight_at_once(engine: CurlEngine, serve: Serve) -> None:
    """A server that answers nobody before it holds 200 requests, answers all of them."""
    barrier = threading.Barrier(200, timeout=10)

    def handler(peer: socket.socket) -> None:
        request(peer)
        barrier.wait()
        peer.sendall(CLOSE)

    port = serve(handler)
    for i in range(200):
        engine.start(i, f"http://site{i}.example:{port}{PATH}", "127.0.0.1")
    assert engine.in_flight == 200
    results = finish(engine, 200)
    assert sorted(result.tag for result in results) == list(range(200))  # type: ignore[type-var]
    assert {result.status for result in results} == {200}
    assert engine.in_flight == 0


def test_sites_of_one_host_share_a_connection(engine: CurlEngine, serve: Serve) -> None:
    """A subdirectory network needs one handshake, not one a site."""
    connections: list[socket.socket] = []

    def handler(peer: socket.socket) -> None:
        connections.append(peer)
        recording([])(peer)

    port = serve(handler)
    for _ in range(5):
        trigger(engine, port)
    assert len(connections) == 1


def test_a_kept_connection_that_died_is_replaced(engine: CurlEngine, serve: Serve) -> None:
    """The server's keep-alive ran out just as the next trigger was sent: it goes over a fresh connection."""
    heads: list[bytes] = []

    def handler(peer: socket.socket) -> None:
        heads.append(request(peer))
        peer.sendall(OK)
        request(peer)

    port = serve(handler)
    assert [trigger(engine, port).status for _ in range(3)] == [200, 200, 200]
    assert len(heads) == 3


def test_idle_connections_are_bounded(engine: CurlEngine, serve: Serve) -> None:
    """400 hosts that would keep their connections leave at most 256 open."""
    port = serve(recording([]))
    for i in range(400):
        engine.start(i, f"http://site{i}.example:{port}{PATH}", "127.0.0.1")
        if engine.in_flight == 50:
            finish(engine, 50)
    assert engine.in_flight == 0
    ours = [c for c in psutil.Process().net_connections() if c.raddr and c.raddr.port == port]
    assert 0 < sum(c.status == psutil.CONN_ESTABLISHED for c in ours) <= 256


# Waiting


def test_poll_without_wait_returns_at_once(engine: CurlEngine, serve: Serve) -> None:
    """0 = do not wait, in flight or not."""
    assert engine.poll(0) == []
    engine.start(1, f"http://site.example:{serve(stay)}/", "127.0.0.1")
    assert engine.poll(0) == []
    assert engine.in_flight == 1


def test_wake_ends_a_running_poll(engine: CurlEngine) -> None:
    """From another thread, though nothing has ended; without it this would wait for a minute."""
    began = time.monotonic()
    threading.Timer(0.05, engine.wake).start()
    assert engine.poll(60) == []
    assert time.monotonic() - began < 30


def test_a_wake_before_poll_is_not_lost(engine: CurlEngine) -> None:
    """Several make one poll return early; the next one waits again."""
    for _ in range(3):
        engine.wake()
    began = time.monotonic()
    assert engine.poll(60) == []
    assert time.monotonic() - began < 30
    began = time.monotonic()
    assert engine.poll(0.05) == []
    assert time.monotonic() - began > 0.04


def test_any_number_of_wakes_is_taken(engine: CurlEngine) -> None:
    """Far more than the socket holds neither block nor fail while nobody polls."""
    for _ in range(10_000):
        engine.wake()
    assert engine.poll(60) == []


def test_close_drops_what_is_in_flight(serve: Serve) -> None:
    """The server sees the connection end; a wake that comes late does no harm."""
    ended = threading.Event()
    begun = threading.Event()

    def handler(peer: socket.socket) -> None:
        request(peer)
        begun.set()
        with contextlib.suppress(OSError):
            stay(peer)
        ended.set()

    engine = CurlEngine(timeout=10, user_agent="x")
    engine.start(1, f"http://site.example:{serve(handler)}/", "127.0.0.1")
    while not begun.is_set():
        engine.poll(0.01)
    engine.close()
    assert ended.wait(10)
    engine.wake()
    assert engine.in_flight == 0
