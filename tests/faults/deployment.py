"""A deployment of its own for one fault: a server, a web process and workers; and the network it walks."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Self

import httpx
import psutil

from jobs import keys
from tests.integration.horses import horse, kill
from tests.integration.own_redis import Own
from tests.integration.processes import lives, until
from tests.integration.stack import free_port
from tests.integration.switch import Switch
from wordpress.demo_network import DemoNetwork, loopback_addresses
from wordpress.demo_sites import Call, DemoSites, plain_sites

SITES = 300
EXCLUDED = ("archived", "deleted", "spam")
LATENCY = (0.1, 0.3)  # seconds until a site answers
CONCURRENCY = 12  # a run with one walker takes some 5 s
EXIT_SECONDS = 10  # CONTRACT section 2: after SIGTERM

Process = subprocess.Popen[bytes]


class Watched(DemoSites):
    """Sites that remember when each of them was called first. `firsts`: these times, by the network's clock."""

    def __init__(self, network: DemoNetwork) -> None:
        super().__init__(network.sites.all)
        self._clock = network.clock
        self.firsts: list[float] = []

    def called(self, host: str, directory: str, query: str, has_body: bool) -> Call:
        call = super().called(host, directory, query, has_body)
        if call.number == 1:
            self.firsts.append(self._clock())
        return call


def watched_network(rng: random.Random) -> tuple[DemoNetwork, Watched]:
    """300 public sites and three excluded ones on five addresses; nothing that goes wrong is theirs."""
    addresses = loopback_addresses(5)
    sites = plain_sites(SITES + len(EXCLUDED), addresses)
    for site in sites:
        site.latency_ms = 1000 * rng.uniform(*LATENCY)
    for site, flag in zip(rng.sample(sites[5:], len(EXCLUDED)), EXCLUDED, strict=True):
        setattr(site, flag, True)
    network = DemoNetwork(sites, addresses)
    network.sites = watched = Watched(network)
    return network, watched


class Deployment(Own):
    """Started as a whole; what a fault ends is started again at once, as a platform does. A context manager.

    The first worker reaches the server through `switch`, all others straight. `told`: processes that a fault has ended.
    """

    def __init__(self, folder: Path, network: DemoNetwork, workers: int) -> None:
        super().__init__(folder)
        self.switch = Switch(self.port)
        self.told: list[Process] = []
        self.stack.use(network)
        self.stack.set(concurrency=CONCURRENCY, rate_limit_seconds=0)
        self.web = self._start("web")
        self.workers = [self._start("worker", behind_switch=number == 0) for number in range(workers)]
        self.stack.wait_for_answer("web", self.web, self.stack.client, "/livez")
        until(lambda: self.stack.redis.zcard(keys.WORKERS) == workers, 30)

    def begin_here(self) -> str:
        """Have the web process walk a run for a caller, whatever becomes of the answer; the run's id."""

        def call() -> None:
            with suppress(httpx.TransportError):
                self.stack.trigger()

        Thread(target=call, daemon=True).start()
        until(lambda: bool(self.stack.redis.exists(keys.ACTIVE)))
        run_id = self.stack.redis.get(keys.ACTIVE)
        assert isinstance(run_id, bytes)
        return run_id.decode()

    def horse(self) -> int:
        """The first worker's horse."""
        return horse(self.workers[0])

    def kill_worker(self) -> None:
        """SIGKILL of the first worker and its horse."""
        worker = self.workers[0]
        self.told.append(worker)
        kill(worker.pid, self.horse())
        self.workers[0] = self._start("worker", behind_switch=True)

    def kill_web(self) -> None:
        """SIGKILL of the web process."""
        self.told.append(self.web)
        kill(self.web.pid)
        self.web = self._start("web")

    def kill_server(self) -> None:
        """SIGKILL of the server; it stays away."""
        kill(self.server_process().pid)
        self.server.stop()  # what stood between it and this process

    def cut_power(self, unsynced: float) -> None:
        """SIGKILL of the server, and what it wrote in the last so many seconds is not on the disk."""
        (file,) = (self.folder / "appendonlydir").glob("*.incr.aof")
        synced = file.stat().st_size
        time.sleep(unsynced)
        self.kill_server()
        os.truncate(file, synced)

    def cut(self, *, silent: bool) -> None:
        """Nothing passes between the first worker and the server; unless silent, every connection ends at once."""
        if silent:
            self.switch.silence()
        else:
            self.switch.target = free_port()
            self.switch.cut()

    def mend(self) -> None:
        """Undo the cut."""
        self.switch.target = self.port
        self.switch.speak()

    def end_all(self) -> None:
        """SIGTERM to every process but the server, at once; when they have ended all are started again."""
        before = [self.web, *self.workers]
        self.told += before
        pids = [pid for process in before for pid in family(process)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for process in before:
            process.wait(EXIT_SECONDS)
        until(lambda: not any(map(lives, pids)), 5)
        self.web = self._start("web")
        self.workers = [self._start("worker", behind_switch=number == 0) for number in range(len(self.workers))]

    def ended_by_themselves(self) -> list[str]:
        """Command lines of processes that have ended though no fault ended them."""
        return [str(each.args) for each in self.stack.processes if each not in self.told and each.poll() is not None]

    def _start(self, name: str, *, behind_switch: bool = False) -> Process:
        port = self.switch.port if behind_switch else self.port
        self.stack.environ["REDIS_URL"] = f"redis://127.0.0.1:{port}"
        return self.stack.start(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in (pid for process in self.stack.processes for pid in family(process)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.close()
        self.switch.close()


def family(process: Process) -> list[int]:
    """The pids of a process and of its children, if it lives."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        return [parent.pid, *(child.pid for child in parent.children(recursive=True))]
    return []
