"""`up` brings everything, shows a run as the demo network's own server counted it, and leaves nothing behind."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from rich.console import Console

from service import up
from service.embedded import EmbeddedValkey
from tests.integration.processes import lives, until

ROOT = Path(__file__).parents[2]
QUICK = {
    "ALL_SITES_CRON_RATE_LIMIT_SECONDS": "0",
    "ALL_SITES_CRON_REQUEST_TIMEOUT": "3",
    "ALL_SITES_CRON_MAX_RETRIES": "1",
    "COLUMNS": "160",
}
READY = 60.0


class Up:
    """`python -m service up` with its output in a file, so that it never waits for a reader."""

    def __init__(self, data_dir: Path, *arguments: str, **environ: str) -> None:
        own = {k: v for k, v in os.environ.items() if not k.startswith(("ALL_SITES_CRON_", "DSS_CRON_"))}
        self.data_dir = data_dir
        self.output = data_dir.with_suffix(".out")
        command = [sys.executable, "-m", "service", "up", "--data-dir", str(data_dir), *arguments]
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**own, **QUICK, **environ}, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_until_it_stays_up(self) -> set[int]:
        """The pids of everything it started."""
        until(lambda: "Everything stays up" in self.text or self.process.poll() is not None, READY)
        assert self.process.poll() is None, self.text
        pids = {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}
        assert len(pids) >= 6, "a tether and a process each of server, web and worker"
        return pids

    @property
    def url(self) -> str:
        found = re.search(r"curl (http://127\.0\.0\.1:\d+)/readyz", self.text)
        assert found, self.text
        return found[1]


Start = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `up` on a data directory of this test, which stays the same; ends what is left."""
    started: list[Up] = []

    def start(*arguments: str, **environ: str) -> Up:
        started.append(Up(tmp_path / "data", *arguments, **environ))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.fixture
def one_site(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """`--sites FILE` with a single site where nobody listens: a network that is walked at once."""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        sites = tmp_path / "sites.txt"
        sites.write_text(f"http://127.0.0.1:{dead.getsockname()[1]}\n")
        yield "--sites", str(sites)


def test_once_shows_a_run_of_the_demo_network_as_its_server_counted_it(start: Start) -> None:
    """55 of its 60 public sites can run: five of the nine with troubles never do."""
    demo = start("--once")
    assert demo.process.wait(READY) == 0, demo.text
    assert re.search(r"ran sites\W+public sites\W+events run twice\W+excluded called\W+wrong calls\b", demo.text)
    assert re.search(r"\W55\W+60\W+0\W+0\W+0\W", demo.text), demo.text
    assert {log.name for log in (demo.data_dir / "logs").iterdir()} == {"web.log", "worker.log", "demo.log"}


def test_with_a_schedule_a_clock_runs_too(start: Start, one_site: tuple[str, str]) -> None:
    """Another process of the Procfile; without one there is none."""
    scheduled = start(*one_site, ALL_SITES_CRON_SCHEDULE="0 0 1 1 *")
    scheduled.wait_until_it_stays_up()
    assert {log.name for log in (scheduled.data_dir / "logs").iterdir()} == {"web.log", "worker.log", "clock.log"}


def test_after_kill_9_nothing_is_left_running_and_the_next_start_has_lost_nothing(start: Start) -> None:
    killed = start()
    pids = killed.wait_until_it_stays_up()
    found = re.search(r"Run (\w[\w-]+)\s", killed.text)
    assert found, killed.text
    killed.process.kill()
    killed.process.wait()
    until(lambda: not any(map(lives, pids)), 15)

    again = start()
    pids = again.wait_until_it_stays_up()
    record = httpx.get(f"{again.url}{up.API}/runs/{found[1]}")
    assert record.status_code == 200
    assert record.json()["run_id"] == found[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_of_it(start: Start, one_site: tuple[str, str], number: signal.Signals) -> None:
    running = start(*one_site)
    pids = running.wait_until_it_stays_up()
    running.process.send_signal(number)
    assert running.process.wait(20) == 0, running.text
    assert not any(map(lives, pids))
    assert "nothing is left running" in running.text


def test_a_process_that_dies_is_named_and_ends_the_rest(start: Start, one_site: tuple[str, str]) -> None:
    running = start(*one_site)
    pids = running.wait_until_it_stays_up()
    tethers = psutil.Process(running.process.pid).children()
    worker = next(tether for tether in tethers if re.search(r"\brq\b.*\bworker\b", " ".join(tether.cmdline())))
    worker.children()[0].kill()
    assert running.process.wait(20) == 1
    assert "worker has ended with exit code 137" in running.text
    assert "The last lines of" in running.text
    assert not any(map(lives, pids))


def test_afterwards_the_screen_shows_runs_and_troubles_alone(start: Start, one_site: tuple[str, str]) -> None:
    """What rq says about each job is in worker.log."""
    running = start(*one_site)
    running.wait_until_it_stays_up()
    httpx.post(f"{running.url}{up.API}/run", params={"defer": "1"}).raise_for_status()
    until(lambda: bool(re.search(r"worker │ .*run ended", running.text)))
    assert "Job OK" not in running.text
    log = running.data_dir / "logs" / "worker.log"
    until(lambda: log.read_text().count("Job OK") >= 2)


def test_with_a_token_set_the_service_asks_for_it_and_up_shows_it(start: Start, one_site: tuple[str, str]) -> None:
    """Shows it to the service, and to nobody else."""
    running = start(*one_site, ALL_SITES_CRON_AUTH_TOKEN="open-sesame")
    running.wait_until_it_stays_up()
    assert httpx.post(f"{running.url}{up.API}/run").status_code == 401
    assert "open-sesame" not in running.text


def test_a_cooldown_is_waited_out(start: Start, one_site: tuple[str, str]) -> None:
    """A second start soon after the first triggers when it may."""
    called = {"ALL_SITES_CRON_ALLOWED_NETWORKS": "127.0.0.0/8", "ALL_SITES_CRON_MAX_RETRIES": "0"}
    for expected in (False, True):
        running = start(*one_site, "--once", ALL_SITES_CRON_RATE_LIMIT_SECONDS="6", **called)
        running.process.wait(READY)
        assert ("Rate limited. Try again in" in running.text) is expected, running.text
        assert "Run " in running.text


def test_another_run_is_waited_out(tmp_path: Path) -> None:
    """And a cooldown after it: each for as long as the answer says."""
    answers = [
        httpx.Response(409, headers={"Retry-After": "1"}, json={"message": "A run is in progress."}),
        httpx.Response(429, headers={"Retry-After": "1"}, json={"message": "Rate limited."}),
        httpx.Response(202, headers={"Location": f"{up.API}/runs/0123"}, json={}),
    ]
    console = Console(file=io.StringIO())
    transport = httpx.MockTransport(lambda request: answers.pop(0))
    with httpx.Client(base_url="http://service", transport=transport) as client:
        assert up._trigger(up.Processes(console, tmp_path), client) == f"http://service{up.API}/runs/0123"
    assert not answers


def test_any_other_refusal_is_told_with_its_reason(tmp_path: Path) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(503, text="Redis is not available."))
    with (
        httpx.Client(base_url="http://service", transport=transport) as client,
        pytest.raises(up.UpError, match=r"503 Redis is not available\."),
    ):
        up._trigger(up.Processes(Console(file=io.StringIO()), tmp_path), client)


def test_a_line_that_is_no_json_is_shown_as_it_is() -> None:
    """And of JSON the event and its facts, without what a terminal would obey."""
    assert up._for_screen('{"half') == '{"half'
    assert up._for_screen("[1]") == "[1]"
    assert up._for_screen('{"event": "run ended", "level": "info", "logger": "all_sites_cron.web", "sites": 3}') == (
        "run ended sites=3"
    )
    assert up._for_screen('{"event": "Job OK", "level": "info", "logger": "rq.worker"}') == ""
    assert up._for_screen('{"event": "\\u001b[2J", "level": "warning", "logger": "rq.worker"}') == "[2J"


def test_a_data_directory_in_use_is_refused(start: Start, tmp_path: Path) -> None:
    with EmbeddedValkey.start(tmp_path / "data"):
        refused = start("--once")
        assert refused.process.wait(READY) == 1
    assert f"{tmp_path / 'data'} is in use by another server" in refused.text.replace("\n", " ")


def test_a_port_that_was_asked_for_and_is_taken_is_refused(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = start("--port", str(taken.getsockname()[1]))
        assert refused.process.wait(READY) == 2
        assert f"Port {taken.getsockname()[1]} is taken" in refused.text


def test_without_a_wish_the_next_free_port_is_chosen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < up._free_port(range(port, port + 50)) < port + 50
