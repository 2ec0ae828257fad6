"""SIGSTOP past the lease and SIGTERM: late writes are refused, a worker that is asked to end loses nothing."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest
from rq.registry import FailedJobRegistry

from jobs import keys
from jobs.rq_jobs import AllowedJob
from jobs.walker import STEP_SECONDS
from tests.integration.horses import begin, horse, late_sites, repeats, running, until_called, walker_of
from tests.integration.processes import lives, until
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork

SITES = 200
LATENCY = 0.1
EXIT_SECONDS = 8


@pytest.fixture
def network(stack: Stack) -> Iterator[DemoNetwork]:
    """200 sites that take 100 ms, 10 in flight a walker; leases of 2 s."""
    with running(late_sites(SITES, latency_ms=LATENCY * 1000)) as made:
        stack.use(made)
        stack.set(concurrency=10, batch_size=10, lock_timeout=2)
        yield made


def test_the_late_writes_of_a_walker_that_slept_past_its_lease_are_refused(stack: Stack, network: DemoNetwork) -> None:
    """Its batches go to the other walker; when it wakes it changes none of their counts, and triggers none of them."""
    concurrency = 4
    stack.set(concurrency=concurrency)
    stack.web()
    sleeper = stack.worker()
    run_id = begin(stack)
    until_called(network, 20)
    stack.worker()
    name, asleep = walker_of(stack, sleeper), horse(sleeper)
    owners = f"{keys.run(run_id)}:owners"

    def owns_a_batch() -> bool:
        tokens = stack.redis.hvals(owners)
        return any(isinstance(token, bytes) and token.startswith(f"{name}#".encode()) for token in tokens)

    assert owns_a_batch()
    os.kill(asleep, signal.SIGSTOP)
    try:
        until(lambda: not owns_a_batch(), 20)
        assert not stack.run(run_id).final
    finally:
        os.kill(asleep, signal.SIGCONT)
    run = stack.ended(run_id)
    until(lambda: not lives(asleep), 10)
    assert stack.run(run_id) == run
    assert (run.status, run.count, sum(run.counts.values()), run.crashes) == ("succeeded", SITES, SITES, 0)
    assert run.batches_done == run.batches == SITES / 10
    stats = network.stats()
    assert (stats["ran_sites"], stats["events_run_twice"]) == (SITES, 0)
    assert repeats(network) <= concurrency * (2 + STEP_SECONDS / LATENCY)  # in flight, and since the last checkpoint


def to_the_worker_alone(worker: subprocess.Popen[bytes]) -> list[int]:
    return [worker.pid]


def to_all_its_processes(worker: subprocess.Popen[bytes]) -> list[int]:
    return [worker.pid, horse(worker)]


@pytest.mark.parametrize("addressees", [to_the_worker_alone, to_all_its_processes])
def test_a_worker_that_is_told_to_end_loses_nothing(
    stack: Stack, network: DemoNetwork, addressees: Callable[[subprocess.Popen[bytes]], list[int]]
) -> None:
    """SIGTERM: it is gone within 8 s, no job failed, and the next worker runs the rest, each event exactly once."""
    stack.web()
    worker = stack.worker()
    run_id = begin(stack)
    until_called(network, 30)
    walking = horse(worker)
    for pid in addressees(worker):
        os.kill(pid, signal.SIGTERM)
    worker.wait(EXIT_SECONDS)
    assert not lives(walking)
    assert not stack.run(run_id).final
    stack.worker()
    run = stack.ended(run_id)
    assert (run.status, run.count, run.crashes) == ("succeeded", SITES, 0)
    assert network.stats()["ran_sites"] == SITES
    assert repeats(network) == 0
    assert FailedJobRegistry("all-sites-cron", connection=stack.redis, job_class=AllowedJob).count == 0


def test_a_worker_that_ends_waits_at_most_5_s_for_sites_that_hang(stack: Stack) -> None:
    """SIGTERM while every slot waits for a site that never answers: gone within 8 s all the same, no job failed."""
    with running(late_sites(SITES, latency_ms=60_000)) as network:
        stack.use(network)
        stack.set(lock_timeout=2, request_timeout=30)
        stack.web()
        worker = stack.worker()
        begin(stack)
        until_called(network, 10)
        worker.send_signal(signal.SIGTERM)
        worker.wait(EXIT_SECONDS)
        assert FailedJobRegistry("all-sites-cron", connection=stack.redis, job_class=AllowedJob).count == 0
