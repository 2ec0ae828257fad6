"""Several workers walk one run: they share it, a late one helps, and no site is triggered twice."""

from collections.abc import Iterator

import pytest

from jobs import rq_names
from tests.integration.horses import begin, late_sites, repeats, running, until_called
from tests.integration.processes import until
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork

QUEUE = rq_names.queue("all-sites-cron")
SITES = 1200
CONCURRENCY = 5


@pytest.fixture
def network(stack: Stack) -> Iterator[DemoNetwork]:
    """1,200 sites that take 20 ms; one walker alone has 5 of them in flight, and holds some 300."""
    with running(late_sites(SITES, latency_ms=20)) as made:
        stack.use(made)
        stack.set(concurrency=CONCURRENCY)
        yield made


def everything_once(network: DemoNetwork) -> bool:
    return network.stats()["ran_sites"] == SITES and repeats(network) == 0


def test_workers_share_a_run_and_trigger_nothing_twice(stack: Stack, network: DemoNetwork) -> None:
    """Three idle workers walk one run together: more is in flight than two of them could have, each site once."""
    stack.web()
    for _ in range(3):
        stack.worker()
    run = stack.ended(begin(stack))
    assert (run.status, run.count) == ("succeeded", SITES)
    assert everything_once(network)
    assert network.in_flight.most_total > 2 * CONCURRENCY


def test_a_late_worker_helps(stack: Stack, network: DemoNetwork) -> None:
    """A worker that starts while a run is under way takes batches of it."""
    stack.web()
    stack.worker()
    run_id = begin(stack)
    until_called(network, 20)
    assert network.in_flight.most_total <= CONCURRENCY
    stack.worker()
    assert stack.ended(run_id).status == "succeeded"
    assert everything_once(network)
    assert network.in_flight.most_total > CONCURRENCY


def test_idle_workers_help_a_sync_run(stack: Stack, network: DemoNetwork) -> None:
    """A run that the web process walks for a waiting caller is shared by the workers that are idle."""
    stack.web()
    stack.worker()
    answer = stack.trigger()
    assert (answer.status_code, answer.json()["count"]) == (200, SITES)
    assert everything_once(network)
    assert network.in_flight.most_total > CONCURRENCY


def test_a_run_is_one_job_and_a_spare_for_each_walker_however_many_sites(stack: Stack) -> None:
    """Admission leaves one job in the queue; a run of 2,000 sites with two workers makes four at most."""
    with running(DemoNetwork.plain(2000, addresses=10)) as network:
        stack.use(network)
        stack.web()
        run_id = begin(stack)
        assert stack.redis.llen(QUEUE) == 1
        assert len(list(stack.redis.scan_iter(f"{rq_names.JOB}*"))) == 1
        seen: set[bytes] = set()

        def ended() -> bool:
            final = stack.run(run_id).final
            seen.update(stack.redis.scan_iter(f"{rq_names.JOB}*"))  # each stays for a minute after its end
            return final

        stack.start("worker")
        stack.start("worker")
        until(ended, 30)
        assert stack.run(run_id).count == network.stats()["events_run"] == 2000
        assert 1 <= len(seen) <= 4
        assert stack.redis.llen(QUEUE) == 0
