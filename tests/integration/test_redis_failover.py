"""A replica takes the place of its primary while a run is walked; what the primary was told last is lost."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from jobs import keys
from jobs.walker import STEP_SECONDS
from service.embedded import EmbeddedValkey
from tests.integration.horses import begin, calls, late_sites, repeats, running, until_called
from tests.integration.own_redis import is_well, refuses
from tests.integration.processes import until
from tests.integration.stack import Stack, free_port
from tests.integration.switch import Switch

SITES, CONCURRENCY, LATENCY = 700, 30, 0.1
LOST = 300  # triggers whose outcomes only the first server was told


class Pair:
    """Two servers and the address that leads to the first. `stack`: a deployment at that address."""

    def __init__(self, folder: Path) -> None:
        ports = free_port(), free_port()
        at_once = ["--repl-diskless-sync-delay", "0"]
        self.primary = EmbeddedValkey.start(folder / "a", ports[0], at_once)
        self.replica = EmbeddedValkey.start(
            folder / "b", ports[1], [*at_once, "--replicaof", "127.0.0.1", str(ports[0])]
        )
        self.first, self.second = Redis(port=ports[0]), Redis(port=ports[1])
        self.switch, self.ports = Switch(ports[0]), ports
        self.stack = Stack(f"redis://127.0.0.1:{self.switch.port}", folder)
        until(lambda: self.second.info("replication")["master_link_status"] == "up")

    def close(self) -> None:
        """End all of it."""
        self.stack.close()
        self.switch.close()
        for each in (self.first, self.second):
            each.close()
        self.replica.stop()
        self.primary.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two servers, the second a copy of the first."""
    with closing(Pair(tmp_path)) as made:
        yield made


def killed(pair: Pair) -> None:
    """The first server ends with all its connections; for a while there is none."""
    pair.primary.stop()
    pair.switch.cut()
    refuses(pair.stack, "unreachable")
    assert pair.stack.client.get("/metrics").status_code == 503
    pair.switch.target = pair.ports[1]


def demoted(pair: Pair) -> None:
    """The first server becomes the second's replica and keeps its connections: only new ones lead to the second."""
    pair.switch.target = pair.ports[1]
    pair.first.replicaof("127.0.0.1", str(pair.ports[1]))


@pytest.mark.parametrize("fate", [killed, demoted])
def test_a_run_outlives_a_failover(pair: Pair, fate: Callable[[Pair], None]) -> None:
    """The run goes on from what the new primary knows, no site is forgotten, no process has to be started again."""
    stack = pair.stack
    with running(late_sites(SITES, latency_ms=LATENCY * 1000)) as network:
        stack.use(network)
        stack.set(concurrency=CONCURRENCY, origin_concurrency=CONCURRENCY, batch_size=10, lock_timeout=2)
        stack.set(rate_limit_seconds=0)
        stack.web()
        stack.worker()
        run_id = begin(stack)
        until_called(network, 60)
        before = calls(network)
        pair.second.replicaof("NO", "ONE")
        until_called(network, before + LOST)
        fate(pair)
        lost = calls(network) - before
        run = stack.ended(run_id)
        assert (run.status, run.count, sum(run.counts.values())) == ("succeeded", SITES, SITES)
        assert network.stats()["ran_sites"] == SITES
        assert 0 < repeats(network) <= lost + CONCURRENCY * (2 + STEP_SECONDS / LATENCY)
        assert run.crashes == 0
        is_well(stack)
        assert pair.second.exists(keys.LOCK, keys.ACTIVE) == 0
