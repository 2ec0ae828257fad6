"""The whole service as it is deployed: the Procfile's lines as real processes, on a real server and network."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs import runs
from jobs.runs import Run
from tests.integration.processes import until
from wordpress.demo_network import DemoNetwork, running

ROOT = Path(__file__).parents[2]
API = "/wp-json/all-sites-cron/v1"
TOKEN = "correct-horse"


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """Processes of one deployment. `environ`: their environment, which a test may change before it starts one."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.redis = Redis.from_url(redis_url)
        self.port = free_port()
        self.environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),  # else rq would take the checkout that is installed
            "REDIS_URL": redis_url,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PYTHONWARNINGS": "error",
            "ALL_SITES_CRON_AUTH_TOKEN": TOKEN,
            "ALL_SITES_CRON_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
        )

    def set(self, **settings: object) -> None:
        """Settings for the processes started from now on: `concurrency=4` is ALL_SITES_CRON_CONCURRENCY=4."""
        self.environ |= {f"ALL_SITES_CRON_{name.upper()}": str(value) for name, value in settings.items()}

    def use(self, network: DemoNetwork) -> None:
        """Take the sites of a running demo network, by file."""
        path = self.folder / "sites.csv"
        path.write_text(httpx.get(f"{network.origin}/_demo/sites.csv").text)
        self.set(sites=path)

    def start(self, name: str, *, command: str | None = None) -> subprocess.Popen[bytes]:
        """Start a line of the Procfile (or another command) in a process group of its own; its log is `log(name)`."""
        line = command or dict(part.split(": ", 1) for part in (ROOT / "Procfile").read_text().splitlines())[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {line}"],
                cwd=ROOT,
                env=self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def web(self) -> subprocess.Popen[bytes]:
        """Start the web process and wait until it answers."""
        process = self.start("web")
        self.wait_for_answer("web", process, self.client, "/livez")
        return process

    def wait_for_answer(self, name: str, process: subprocess.Popen[bytes], client: httpx.Client, path: str) -> None:
        """Until the process answers 200; fails with its log when it ends before."""

        def answers() -> bool:
            assert process.poll() is None, self.log(name)
            with suppress(httpx.TransportError):
                return client.get(path).status_code == 200
            return False

        until(answers, 20)

    def worker(self) -> subprocess.Popen[bytes]:
        """Start one more `rq worker` and wait until it is heard of."""
        before = self.redis.zcard("all_sites_cron:workers")
        process = self.start("worker")

        def heard() -> bool:
            assert process.poll() is None, self.log("worker")
            return self.redis.zcard("all_sites_cron:workers") > before

        until(heard, 20)
        return process

    def log(self, name: str) -> str:
        """What the processes of that name have written so far."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, run_id: str) -> Run:
        """The record of a run."""
        return runs.read(self.redis, run_id)

    def ended(self, run_id: str, seconds: float = 30) -> Run:
        """The record of a run, once it has ended."""
        until(lambda: self.run(run_id).final, seconds)
        return self.run(run_id)

    def trigger(self, **query: Any) -> httpx.Response:
        """Press the button."""
        return self.client.post(f"{API}/run", params=query)

    def command(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line."""
        return subprocess.run(
            [sys.executable, "-m", "service", *arguments],
            cwd=ROOT,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def close(self) -> None:
        """End every process that was started, and its horses."""
        self.client.close()
        for process in self.processes:
            _end(process)
        self.redis.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


@pytest.fixture
def stack(redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    """A deployment without any process yet."""
    made = Stack(redis_url, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def network(stack: Stack) -> Iterator[DemoNetwork]:
    """120 healthy demo sites on 4 addresses, which the stack uses."""
    with running(DemoNetwork.plain(120, addresses=4)) as made:
        stack.use(made)
        yield made


def environ_of(stack: Stack, **settings: object) -> Mapping[str, str]:
    """The stack's environment with other settings, for a world built in the test's own process."""
    return {**stack.environ, **{f"ALL_SITES_CRON_{name.upper()}": str(value) for name, value in settings.items()}}


@pytest.fixture
def few(stack: Stack) -> Iterator[DemoNetwork]:
    """12 healthy demo sites on one address, which the stack uses."""
    with running(DemoNetwork.plain(12)) as made:
        stack.use(made)
        yield made
