"""A deployment with a Redis of its own, which a test may hurt, and what holds in whatever way it is hurt."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from redis import Redis

from jobs import keys
from service.embedded import EmbeddedValkey
from tests.integration.horses import begin, calls, late_sites, running, until_called
from tests.integration.processes import until
from tests.integration.stack import API, Stack, free_port
from wordpress.demo_network import DemoNetwork

NOTHING_STARTED = "Redis is not available; unless it took this call just before, nothing was started."
UNAVAILABLE = {"success": False, "error": "redis_unavailable", "message": NOTHING_STARTED}
NOT_PROCESSED = {"success": False, "message": "Redis is not available"}
SITES, CONCURRENCY, LATENCY = 150, 10, 0.1


class Own:
    """A deployment with a server of its own, which a test may stop and start. `password`: in its REDIS_URL, if any."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.folder = folder / "data"
        self.port = free_port()
        self.server = EmbeddedValkey.start(self.folder, self.port, ["--requirepass", password] if password else [])
        self.stack = Stack(f"redis://:{password}@127.0.0.1:{self.port}" if password else self.server.url, folder)

    def restart(self) -> None:
        """Bring the server back on its port, with what it had."""
        self.server = EmbeddedValkey.start(self.folder, self.port)

    def server_process(self) -> psutil.Process:
        """The server itself."""
        with Redis.from_url(self.server.url) as redis:
            return psutil.Process(int(redis.info("server")["process_id"]))

    def close(self) -> None:
        """End all of it."""
        self.stack.close()
        self.server.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    """The deployment, not started."""
    with closing(Own(tmp_path)) as made:
        yield made


@contextmanager
def walked(stack: Stack, sites: int = SITES) -> Iterator[tuple[DemoNetwork, str]]:
    """A web process and a worker, and the id of a run over late sites that they are in the middle of."""
    with running(late_sites(sites, latency_ms=LATENCY * 1000)) as network:
        stack.use(network)
        stack.set(concurrency=CONCURRENCY, batch_size=10, lock_timeout=2, rate_limit_seconds=0)
        stack.web()
        stack.worker()
        run_id = begin(stack)
        until_called(network, 30)
        yield network, run_id


def still(network: DemoNetwork, stack: Stack) -> None:
    """Wait until the walk has found out, and nothing is started any more."""
    until(lambda: "nothing new is started until it can" in stack.log("worker"))
    until(lambda: not network.in_flight.total)


def refuses(stack: Stack, why: str) -> None:
    """What a deployment says whose Redis cannot serve: it is alive and not ready, `why`; no button starts anything."""
    for query in ({}, {"defer": 1}):
        answer = stack.trigger(**query)
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, UNAVAILABLE, "5")
    answer = stack.client.post(f"{API}/process-queue")
    assert (answer.status_code, answer.json()) == (503, NOT_PROCESSED)
    assert stack.client.get("/livez").status_code == 200
    answer = stack.client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]) == (503, {"redis": why})


def advises(stack: Stack, seen: str) -> None:
    """`check` and `run` say what is wrong, and exit with 69."""
    checked = stack.command("check")
    assert (checked.returncode, seen in checked.stdout) == (69, True), checked.stdout + checked.stderr
    assert stack.command("run").returncode == 69


def recovers(stack: Stack, network: DemoNetwork, run_id: str, heal: Callable[[], object]) -> None:
    """Once Redis is well the same processes go on with the run where it was, forget no site, and walk another."""
    before = calls(network)
    assert before < SITES
    heal()
    run = stack.ended(run_id)
    assert (run.status, run.count, sum(run.counts.values()), run.crashes) == ("succeeded", SITES, SITES, 0)
    assert (network.stats()["ran_sites"], calls(network)) == (SITES, SITES)
    is_well(stack)


def is_well(stack: Stack) -> None:
    """The processes that were there before are ready and walk another run; nothing is left held, no error was met."""
    assert stack.client.get("/readyz").status_code == 200
    assert stack.ended(begin(stack)).status == "succeeded"
    assert [process.poll() for process in stack.processes] == [None, None]
    assert stack.redis.exists(keys.LOCK, keys.ACTIVE) == 0
    assert " 500 " not in stack.log("web")
    assert "ended with an error" not in stack.log("web")
