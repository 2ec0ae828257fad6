"""Origin servers that are down, overloaded, or say when to come back: real ones, over a whole run."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.outcomes import Outcome
from jobs.runs import Run
from jobs.world import build
from tests.integration.horses import late_sites, running
from tests.integration.odd_servers import OK, serving, walked
from tests.integration.stack import Stack, environ_of


def walk(stack: Stack, urls: list[str], **settings: Any) -> tuple[Run, float]:
    """A walk over these sites that waits a second for an answer, and how many seconds it took."""
    path = stack.folder / "these.txt"
    path.write_text("".join(f"{url}\n" for url in urls))
    run = walked(build(environ_of(stack, sites=path, **{"request_timeout": 1, **settings})))
    assert run.started_ms is not None
    assert run.ended_ms is not None
    return run, (run.ended_ms - run.started_ms) / 1000


@pytest.fixture(params=["refusing", "silent"])
def dead_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that refuses connections, or of one whose full backlog drops every new one (Linux)."""
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        if request.param == "silent":
            server.listen(0)
            for _ in range(4):
                filler = opened.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_the_sites_of_a_dead_server_cost_a_timeout_or_two(stack: Stack, dead_server: str) -> None:
    """One after another, eight at a time and with their retries, they would take two minutes."""
    with running(late_sites(100, latency_ms=10)) as network:
        urls = [f"{dead_server}/{i}" for i in range(1000)]
        run, seconds = walk(stack, [*urls, *(site.url for site in network.sites.all)])
        assert run.counts == {Outcome.DISPATCHED: 100, Outcome.HOST_DOWN: 1000}
        assert (run.status, run.errors, run.retries) == ("partial", 1000, 0)
        assert run.failures[0].detail.startswith("127.0.0.1 port ")
        assert seconds < 20


def refusing(status: str, retry_after: int | None = None) -> bytes:
    after = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
    return f"HTTP/1.1 {status}\r\n{after}Content-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_retry_after_holds_for_all_sites_of_a_server(stack: Stack, status: str) -> None:
    """After one such answer it is left alone for so long; another server's sites are triggered meanwhile."""
    times: list[float] = []
    lock = threading.Lock()

    def answer(peer: socket.socket, _head: str) -> None:
        with lock:
            times.append(time.monotonic())
            first = len(times) == 1
        peer.sendall(refusing(status, 2) if first else OK)

    with running(late_sites(300, latency_ms=10)) as network, serving(answer) as server:
        urls = [f"{server.url}/{i}" for i in range(40)]
        run, _seconds = walk(stack, urls + [site.url for site in network.sites.all], origin_concurrency=1)
        assert run.counts == {Outcome.DISPATCHED: 340}
        assert run.retries == 1
        assert (len(times), times[1] - times[0] > 1.9) == (41, True)


def test_a_server_that_bears_three_at_once_is_not_overrun(stack: Stack) -> None:
    """It answers 429 beyond; with sixty-four allowed every site is dispatched, few after a retry."""
    free, refused = threading.Semaphore(3), []

    def answer(peer: socket.socket, head: str) -> None:
        if free.acquire(blocking=False):
            time.sleep(0.02)
            free.release()
            peer.sendall(OK)
        else:
            refused.append(head)
            peer.sendall(refusing("429 Too Many Requests"))

    with serving(answer) as server:
        urls = [f"{server.url}/{i}" for i in range(600)]
        run, _seconds = walk(stack, urls, origin_concurrency=64, concurrency=64)
        assert run.counts == {Outcome.DISPATCHED: 600}
        assert len(refused) < 60
