"""What the tests of walks share: a worker's horse, and how far a walk is, as the demo network counts it."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from rq import Worker

from jobs import keys
from tests.integration.processes import lives, until
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork, loopback_addresses, running
from wordpress.demo_sites import DemoSite, plain_sites

__all__ = [
    "begin",
    "calls",
    "horse",
    "kill",
    "late_sites",
    "repeats",
    "running",
    "until_called",
    "untouched",
    "walker_of",
    "walking",
]


def late_sites(count: int, *, addresses: int = 5, latency_ms: float = 100) -> DemoNetwork:
    """Healthy sites that all take so long to answer; who hangs up meanwhile has triggered nothing."""
    names = loopback_addresses(addresses)
    return DemoNetwork(plain_sites(count, names, latency_ms), names)


def horse(worker: subprocess.Popen[bytes]) -> int:
    """The pid of the worker's horse, once it has one."""
    found: list[int] = []

    def born() -> bool:
        found[:] = [child.pid for child in psutil.Process(worker.pid).children() if lives(child.pid)]
        return bool(found)

    until(born, 20)
    return found[0]


def walker_of(stack: Stack, worker: subprocess.Popen[bytes]) -> str:
    """The name a worker walks under: its job's id."""
    found = [one for one in Worker.all(connection=stack.redis) if one.pid == worker.pid]
    return str(found[0].get_current_job_id())


def untouched(stack: Stack, network: DemoNetwork, run_id: str, worker: subprocess.Popen[bytes]) -> list[DemoSite]:
    """The sites in a worker's batches that nobody has called yet."""
    owner, run = walker_of(stack, worker), keys.run(run_id)
    owners, pages = stack.redis.hgetall(f"{run}:owners"), stack.redis.hgetall(f"{run}:pages")
    held = [json.loads(pages[page]) for page, token in owners.items() if owner in str(token)]
    sites = [network.sites.by_id[int(site[0])] for page in held for site in page]
    return [site for site in sites if not site.calls]


def kill(*pids: int) -> None:
    """SIGKILL, and wait until they are gone."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(lives(pid) for pid in pids))


def calls(network: DemoNetwork) -> int:
    """Triggers that the network's server has had."""
    return network.sites.calls


def until_called(network: DemoNetwork, number: int) -> None:
    """Wait until the network's server has had so many triggers."""
    until(lambda: calls(network) >= number, 20)


def repeats(network: DemoNetwork) -> int:
    """Triggers beyond the first of each site."""
    return sum(max(0, site.calls - 1) for site in network.sites.all)


def begin(stack: Stack, **query: object) -> str:
    """Queue a run; its id."""
    answer = stack.trigger(defer=1, **query)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


@contextmanager
def walking(stack: Stack) -> Iterator[tuple[DemoNetwork, str]]:
    """300 late sites, and the id of a run over them that a worker is in the middle of."""
    with running(late_sites(300, latency_ms=50)) as network:
        stack.use(network)
        stack.set(concurrency=10)
        stack.web()
        stack.worker()
        run_id = begin(stack)
        until_called(network, 20)
        yield network, run_id
