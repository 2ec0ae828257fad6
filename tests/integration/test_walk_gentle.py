"""Origin servers that are down, overloaded, or say when to come back: real ones, over a whole run."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.outcomes import Outcome
from jobs.runs import Run
from jobs.world import build
from tests.integration.horses import late_sites, running
from tests.integration.odd_servers import walked
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
