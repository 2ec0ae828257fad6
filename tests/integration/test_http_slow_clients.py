"""Clients that send slowly, too much or not to the end: bounded, answered and gone (uvicorn as in the Procfile)."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.processes import until
from tests.integration.stack import API, TOKEN, Stack
from wordpress.demo_network import DemoNetwork

IMPATIENT = """
import service.connections, service.parameters
service.connections.HEAD_SECONDS = service.parameters.BODY_SECONDS = 0.5
"""
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
AUTH = f"Authorization: Bearer {TOKEN}\r\n".encode()
POST = f"POST {API}/run?defer=1 HTTP/1.1\r\nHost: x\r\n".encode()


@pytest.fixture(params=["httptools", "h11"])
def web(request: pytest.FixtureRequest, stack: Stack, network: DemoNetwork, tmp_path: Path) -> psutil.Process:
    """The web process over either parser, waiting half a second for a head and for a body instead of ten."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(IMPATIENT)
    if request.param == "h11":
        (folder / "httptools.py").write_text("raise ImportError")
    stack.environ["PYTHONPATH"] = f"{folder}:{stack.environ['PYTHONPATH']}"
    return psutil.Process(stack.web().pid)


@contextlib.contextmanager
def client(stack: Stack) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", stack.port), 10) as peer:
        yield peer


def until_gone(peer: socket.socket) -> bytes:
    """What it was answered, up to the hang-up."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := peer.recv(65536):
            received += chunk
    return received


def drip(peer: socket.socket, piece: bytes) -> None:
    """Send a piece again and again, until it is hung up."""
    with contextlib.suppress(OSError):
        while True:
            peer.sendall(piece)
            time.sleep(0.02)


SLOW = {
    "says nothing": (b"", b"", [400]),
    "half a head": (GET, b"", [400]),
    "drips its head": (GET, b"X: y\r\n", [400]),
    "half a second head": (GET + b"\r\nGET /li", b"", [200]),
    "drips a second head": (GET + b"\r\n" + GET, b"X: y\r\n", [200]),
    "half a body": (POST + AUTH + b"Content-Length: 9\r\n\r\nab", b"", [408]),
    "drips its body": (POST + AUTH + b"Content-Length: 9999\r\n\r\n", b"a", [408]),
    "drips chunks": (POST + AUTH + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", [408]),
    "a stranger's body": (POST + b"Content-Length: 9999\r\n\r\n", b"a", [401]),
    "a body nobody reads": (GET + b"Content-Length: 9999999\r\n\r\n", b"a", [200]),
}


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def test_a_client_that_never_ends_its_request_is_hung_up(stack: Stack, web: psutil.Process) -> None:
    """Each in its own way, all at once, while others are served; no run is started, no connection is left."""
    before = len(web.net_connections())
    answered: dict[str, list[int]] = {}

    def hang(name: str, first: bytes, then: bytes) -> None:
        with client(stack) as peer:
            peer.sendall(first)
            if then:
                threading.Thread(target=drip, args=(peer, then), daemon=True).start()
            answered[name] = statuses(until_gone(peer))

    threads = [threading.Thread(target=hang, args=(name, *case[:2])) for name, case in SLOW.items()]
    for thread in threads:
        thread.start()
    assert stack.client.get("/livez").status_code == 200
    for thread in threads:
        thread.join(20)
    assert answered == {name: case[2] for name, case in SLOW.items()}
    until(lambda: len(web.net_connections()) <= before)
    assert not stack.redis.exists("all_sites_cron:active")
    assert "Traceback" not in stack.log("web")


HUGE = {
    "a header of 1 MiB": (GET + b"X: ", [400]),
    "a path of 1 MiB": (b"GET /", [400]),
    "headers without end": (GET + b"X: y\r\n" * 100, [400]),
    "a body of 64 MiB": (POST + AUTH + b"Content-Length: 67108864\r\n\r\n", [413]),
    "chunks without end": (POST + AUTH + b"Transfer-Encoding: chunked\r\n\r\n4000000\r\n", [413]),
    "a stranger's body": (POST + b"Content-Length: 67108864\r\n\r\n", [401]),
    "a body nobody reads": (GET + b"Content-Length: 67108864\r\n\r\n", [200]),
    "a second head": (GET + b"\r\n" + GET + b"X: ", [200]),
}


def test_a_request_of_any_size_is_cut_off_and_answered(stack: Stack, web: psutil.Process) -> None:
    """The process does not grow by it, and starts nothing."""
    before = web.memory_info().rss
    sent, answered = dict.fromkeys(HUGE, 0), dict[str, list[int]]()
    for name, (start, _) in HUGE.items():
        with client(stack) as peer:
            peer.sendall(start)
            with contextlib.suppress(ConnectionError):
                while sent[name] < 64 * 1024 * 1024:
                    sent[name] += peer.send(b"a" * 65536)
            answered[name] = statuses(until_gone(peer))[:1]
        assert web.memory_info().rss - before < 8_000_000, name
    assert answered == {name: case[1] for name, case in HUGE.items()}
    assert max(sent.values()) < 16 * 1024 * 1024, "what the two kernels hold, and what was read"
    assert stack.client.get("/livez").status_code == 200
    assert not stack.redis.exists("all_sites_cron:active")
