"""A flood of callers, for a moment; `python -m bench.load` does it at length."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load import flood
from service.embedded import EmbeddedValkey
from tests.integration.stack import Stack, free_port
from wordpress.demo_network import DemoNetwork


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A server that is reached over TCP, so that connections to it can be told from others."""
    port = free_port()
    with EmbeddedValkey.start(tmp_path / "v", port) as server:
        yield server.url


def test_a_flood_makes_one_run_a_cooldown_and_nothing_else(stack: Stack, network: DemoNetwork) -> None:
    """50 callers at once: no answer but 202, 409 and 429; memory is flat, connections are within their bound."""
    stack.set(rate_limit_seconds=2, redis_max_connections=5)
    stack.web()
    stack.worker()
    seen = flood(stack, callers=50, seconds=3)
    assert {202, 429} <= set(seen.statuses) <= {202, 409, 429}
    assert len(seen.starts) <= 4
    assert min(seen.gaps, default=1) >= 1, "2 s, less the second before its end"
    assert network.stats()["calls"] == 120 * len(seen.starts)
    assert 1 <= seen.connections <= 5
    assert seen.growth < 8_000_000
    assert "Traceback" not in stack.log("web")
