"""SIGKILL of whatever walks a run: what it held comes back by itself, no site is left out, the run ends."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from jobs import keys
from jobs.walker import STEP_SECONDS
from tests.integration.horses import begin, horse, kill, late_sites, repeats, running, until_called
from tests.integration.processes import lives, until
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork

SITES = 200
CONCURRENCY = 10
LATENCY = 0.1
UNSAVED = CONCURRENCY * (2 + STEP_SECONDS / LATENCY)  # triggers in flight and those since the last checkpoint

Worker = subprocess.Popen[bytes]


@pytest.fixture
def network(stack: Stack) -> Iterator[DemoNetwork]:
    """200 sites that take 100 ms, 10 in flight a walker; leases of 2 s."""
    with running(late_sites(SITES, latency_ms=LATENCY * 1000)) as made:
        stack.use(made)
        stack.set(concurrency=CONCURRENCY, batch_size=10, lock_timeout=2)
        yield made


def a_horse(first: Worker, second: Worker) -> list[int]:
    return [horse(first)]


def a_worker_and_its_horse(first: Worker, second: Worker) -> list[int]:
    return [first.pid, horse(first)]


def both_workers_and_horses(first: Worker, second: Worker) -> list[int]:
    return [first.pid, horse(first), second.pid, horse(second)]


@pytest.mark.parametrize("victims", [a_horse, a_worker_and_its_horse, both_workers_and_horses])
def test_the_batches_of_a_killed_walker_come_back(
    stack: Stack, network: DemoNetwork, victims: Callable[[Worker, Worker], list[int]]
) -> None:
    """Whoever of two workers is killed: every site is triggered, few twice, the run ends and the lock is free."""
    stack.web()
    first, second = stack.worker(), stack.worker()
    run_id = begin(stack)
    until_called(network, 60)
    killed = victims(first, second)
    kill(*killed)
    if second.pid in killed:
        stack.worker()
    run = stack.ended(run_id, 60)
    assert (run.status, run.count, sum(run.counts.values())) == ("succeeded", SITES, SITES)
    assert network.stats()["ran_sites"] == SITES
    assert repeats(network) <= UNSAVED * (2 if second.pid in killed else 1)
    assert stack.redis.exists(keys.LOCK, keys.ACTIVE) == 0


def test_the_horse_of_a_killed_worker_drains(stack: Stack, network: DemoNetwork) -> None:
    """SIGKILL of only the worker's parent process: its horse finishes what is in flight, gives the rest back, ends."""
    stack.web()
    worker = stack.worker()
    run_id = begin(stack)
    until_called(network, 30)
    orphan = horse(worker)
    kill(worker.pid)
    until(lambda: not lives(orphan), 10)
    assert not stack.run(run_id).final
    stack.worker()
    assert stack.ended(run_id).status == "succeeded"
    assert network.stats()["ran_sites"] == SITES
    assert repeats(network) == 0
    assert stack.run(run_id).crashes == 0


def test_a_run_that_kills_its_walker_three_times_fails(stack: Stack, network: DemoNetwork) -> None:
    """The third walker that dies without a word ends the run, with the reason; nobody tries it again."""
    stack.web()
    worker = stack.worker()
    run_id = begin(stack)

    def walks() -> int:
        return stack.log("worker").count("walker joined")

    for number in (1, 2, 3):
        until(lambda: walks() == number, 20)  # noqa: B023 - called at once
        kill(horse(worker))
    run = stack.ended(run_id)
    assert (run.status, run.reason, run.crashes) == ("failed", "crashed_3_times", 3)
    assert walks() == 3
    assert stack.redis.exists(keys.LOCK, keys.ACTIVE) == 0
    assert worker.poll() is None
