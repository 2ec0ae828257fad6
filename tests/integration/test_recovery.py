"""How soon the sites of a killed worker are walked again, with the default lease of 15 s."""

import subprocess
from collections.abc import Iterator

import pytest

from jobs import keys
from tests.integration.horses import begin, horse, kill, late_sites, running, until_called, untouched
from tests.integration.processes import until
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import DemoSite

SITES = 300
STANDBY_SECONDS, START_SECONDS = 20, 10


@pytest.fixture
def network(stack: Stack) -> Iterator[DemoNetwork]:
    """300 sites that take 100 ms, 10 in flight a walker."""
    with running(late_sites(SITES)) as made:
        stack.use(made)
        stack.set(concurrency=10, batch_size=10)
        stack.web()
        yield made


def killed(stack: Stack, network: DemoNetwork, run_id: str, worker: subprocess.Popen[bytes]) -> list[DemoSite]:
    """SIGKILL of a worker and its horse; the sites that it had claimed and not called."""
    until_called(network, 40)
    kill(worker.pid, horse(worker))
    left = untouched(stack, network, run_id, worker)
    assert left
    return left


def test_a_standby_worker_walks_the_sites_of_a_killed_one(stack: Stack, network: DemoNetwork) -> None:
    """Within 20 s of the kill: 15 s after its last checkpoint its lease has run out."""
    worker = stack.worker()
    stack.worker()
    run_id = begin(stack)
    until(lambda: stack.log("worker").count("walker joined") == 2)
    left = killed(stack, network, run_id, worker)
    until(lambda: any(site.calls for site in left), STANDBY_SECONDS)
    assert stack.ended(run_id).status == "succeeded"
    assert network.stats()["ran_sites"] == SITES


def test_a_worker_that_starts_walks_the_sites_of_a_killed_one(stack: Stack, network: DemoNetwork) -> None:
    """Within 10 s of its start, unless that follows the kill so closely that the lease of 15 s lasts longer."""
    worker = stack.worker()
    run_id = begin(stack)
    left = killed(stack, network, run_id, worker)
    until(lambda: stack.redis.pttl(keys.LOCK) < (START_SECONDS - 1) * 1000)
    stack.start("worker")
    until(lambda: any(site.calls for site in left), START_SECONDS)
    assert stack.ended(run_id).status == "succeeded"
    assert network.stats()["ran_sites"] == SITES
