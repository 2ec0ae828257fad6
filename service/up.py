"""Everything on this machine with one command: Valkey, web, one worker, a demo network, and a first run.

What runs are the `web:` and `worker:` lines of the Procfile, as in a deployment. It ends as a whole: Ctrl-C stops all
of it, and each process is under a tether, so that nothing is left running even when this one is killed.
"""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.parse import urljoin

import httpx
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, track
from rich.table import Column, Table
from rich.text import Text

from jobs import settings
from jobs.errors import AllSitesCronError, SettingsError
from jobs.plain_text import plain
from jobs.runs import FINAL
from service import tether
from service.embedded import EmbeddedValkey
from service.paths import NAMESPACE, REST

API = REST + NAMESPACE
PORTS = range(8080, 8130)
_DEMO_PORTS = range(8090, 8140)  # the same after a restart, so that a run that was cut off finds its sites
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STAGES = (("web", "worker"), ("demo",), ("valkey",))  # the order of ending: each after those that call it
_LONGEST_LINE = 2000


class UpError(AllSitesCronError):
    """Not everything can be started, or a process has ended; the text says which, with its last lines."""


class Process:
    """One process and its log file."""

    def __init__(self, name: str, log: Path, popen: "Popen[bytes]") -> None:
        self.name, self.log, self.popen = name, log, popen
        self._reader = log.open(errors="replace")
        self._begun = ""  # of a line whose end is not written yet

    def new_lines(self) -> list[str]:
        """The lines written since the last call."""
        *lines, self._begun = (self._begun + self._reader.read()).split("\n")
        return lines


class Processes:
    """All of them. What a person wants to see of their output is printed while `shows_output`."""

    def __init__(self, console: Console, logs: Path) -> None:
        self.console, self.logs = console, logs
        self.running: list[Process] = []
        self.shows_output = False

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str], grace: float) -> Process:
        """Start a command under a tether, with its output in a file."""
        self.logs.mkdir(exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("wb") as out:
            popen = tether.spawn(command, grace, stdout=out, stderr=out, env=environ)
        self.running.append(Process(name, log, popen))
        return self.running[-1]

    def wait(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Until the condition holds; raises UpError when a process ends, or after so many seconds."""
        deadline = time.monotonic() + seconds
        while not condition():
            for process in self.running:
                for line in process.new_lines():
                    if self.shows_output and (text := _for_screen(line)):
                        self.console.print(Text(f"{process.name:<6} │ {text}"), soft_wrap=True)
                if (code := process.popen.poll()) is not None:
                    what = f"{process.name} has ended with exit code {code}. The last lines of {process.log}:"
                    last = process.log.read_text(errors="replace").splitlines()[-15:]
                    raise UpError("\n  ".join([what, *(plain(line, _LONGEST_LINE) for line in last)]))
            if time.monotonic() > deadline:
                raise UpError(f"Not everything is ready after {seconds:.0f} s; see the logs in {self.logs}.")
            time.sleep(0.05)

    def pause(self, seconds: float) -> None:
        """Sleep; raises UpError when a process ends."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end, float("inf"))

    def stop(self) -> None:
        """End all of them, within the sum of the stages' longest graces."""
        for stage in _STAGES:
            tether.end(*(process.popen for process in self.running if process.name in stage))


def up(*, sites: str | None, data_dir: Path, port: int | None, once: bool = False, console: Console) -> int:
    """Start everything, show a first run, and stay until Ctrl-C or SIGTERM; the exit code.

    `sites`: as the setting SITES; None, and that not set: the demo network. `port` None: the first free one of PORTS.
    `once`: end after that run, with 0 if it succeeded, wholly or in part. Keeps the signals: for a process of its own.
    """
    processes = Processes(console, data_dir / "logs")
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        return _up(processes, sites, data_dir, port, once)
    except KeyboardInterrupt:
        return 0
    except (AllSitesCronError, httpx.HTTPError) as error:
        asked = f"{error.request.url}: " if isinstance(error, httpx.HTTPError) else ""
        console.print(Text(f"{asked}{error}", "red"))
        return 2 if isinstance(error, SettingsError) else 1
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave the rest to the tethers
        with console.status("Stopping …"):
            processes.stop()
        if processes.running:
            console.print("Stopped; nothing is left running.")


def _up(processes: Processes, sites: str | None, data_dir: Path, port: int | None, once: bool) -> int:
    console = processes.console
    environ = {**os.environ, **({"ALL_SITES_CRON_SITES": sites} if sites else {}), "REDIS_URL": "unix://"}
    loaded = settings.load(environ)
    for warning in loaded.warnings:
        console.print(Text(warning, "yellow"))
    port = _free_port(PORTS if port is None else range(port, port + 1))
    environ |= {"HOST": "127.0.0.1", "PORT": str(port), "PYTHONUNBUFFERED": "1"}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if not loaded.settings.tokens and loaded.settings.require_auth is None:
        environ["ALL_SITES_CRON_REQUIRE_AUTH"] = "false"  # only this machine can connect
    token = next((t.secret.get_secret_value() for t in loaded.settings.tokens if t.scope == "run"), None)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        with console.status("Starting …"):
            server = EmbeddedValkey.start(data_dir)
            processes.running.append(Process("valkey", server.log, server.process))
            environ["REDIS_URL"] = server.url
            stats_url = None if loaded.settings.sites else _start_demo(processes, environ, loaded)
            _start_service(processes, environ, client)
        url_of_run = _trigger(processes, client)
        run = _follow(processes, client, url_of_run)
        _show_run(console, run)
        if run["verification"]:
            with console.status("Looking at what WordPress ran …"):
                processes.wait(lambda: client.get(url_of_run).json()["verification"]["verified"] > 0)
            verified = client.get(url_of_run).json()["verification"]
            columns = ("verified", "working", "stuck", "unknown", "status")
            _show_table(console, "What WordPress ran, by its schedules", columns, [verified])
    if stats_url:
        columns = ("ran_sites", "public_sites", "events_run_twice", "excluded_called", "wrong_calls")
        counted = httpx.get(stats_url, trust_env=False).json()
        _show_table(console, "As the demo network's own server counted it", columns, [counted])
        console.print("The sites that did not run fail, hang or are away on purpose.")
    if once:
        return 0 if run["status"] in ("succeeded", "partial") else 1
    curl = "curl -H 'Authorization: Bearer …'" if token else "curl"
    to_try = ["", "Everything stays up. To try:", f"  {curl} -X POST '{url}{API}/run?defer=1'"]
    to_try += [f"  {curl} {url}{API}/runs/{run['run_id']}", f"  curl {url}/readyz"]
    if stats_url:
        to_try += [f"  curl {stats_url}", f"  curl -X POST {urljoin(stats_url, 'arm')}  makes all demo sites due again"]
    to_try += ["", f"Logs and data: {data_dir.resolve()}", "Ctrl-C stops all of it."]
    console.print(Text("\n".join(to_try)), soft_wrap=True)
    processes.shows_output = True
    while True:
        processes.pause(3600)


def _start_demo(processes: Processes, environ: dict[str, str], loaded: settings.Loaded) -> str:
    """Start the demo network and make it the service's; where it tells its counts."""
    command = [sys.executable, "-m", "service", "demo-network", "--port", str(_free_port(_DEMO_PORTS))]
    log = processes.start("demo", command, environ, grace=1).log
    ready = re.compile(r'^{"ready".*\n', re.MULTILINE)
    processes.wait(lambda: bool(ready.search(log.read_text())))
    demo = json.loads(ready.findall(log.read_text())[0])
    environ["ALL_SITES_CRON_SITES"] = demo["sites_url"]
    networks = map(str, loaded.settings.allowed_networks)
    environ["ALL_SITES_CRON_ALLOWED_NETWORKS"] = ",".join(["127.0.0.0/8", *networks])
    if "max_retries" not in loaded.origins:
        environ["ALL_SITES_CRON_MAX_RETRIES"] = "1"  # its dead site would hold the first run for 40 s
    return str(demo["stats_url"])


def _start_service(processes: Processes, environ: dict[str, str], client: httpx.Client) -> None:
    """Start web and worker and wait until the one answers and knows of the other."""
    procfile = Path(__file__).with_name("Procfile")  # in a wheel; in a checkout beside the package
    text = (procfile if procfile.exists() else procfile.parents[1] / "Procfile").read_text(encoding="utf-8")
    for name, line in re.findall(r"^(web|worker):\s*(.+)$", text, re.MULTILINE):
        processes.start(name, ["sh", "-c", f"exec {line}"], environ, grace=10)

    def is_ready() -> bool:
        with suppress(httpx.TransportError):
            answer = client.get("/readyz")
            return answer.status_code == 200 and answer.json()["workers"] > 0
        return False

    processes.wait(is_ready)


def _trigger(processes: Processes, client: httpx.Client) -> str:
    """Trigger one deferred run, waiting out a cooldown or another run; its URL."""
    while (answer := client.post(f"{API}/run", params={"defer": "1"})).status_code in (409, 429):
        processes.console.print(Text(plain(answer.json()["message"])))
        for _ in track(range(int(answer.headers["Retry-After"])), "Waiting", console=processes.console):
            processes.pause(1)
    if answer.status_code != 202:
        raise UpError(f"The run was not admitted: {answer.status_code} {plain(answer.text, 500)}")
    if warning := answer.json().get("warning"):
        processes.console.print(Text(plain(warning), "yellow"))
    return urljoin(str(answer.url), answer.headers["Location"])


def _follow(processes: Processes, client: httpx.Client, url: str) -> dict[str, Any]:
    """Show a run's progress; its record when it has ended."""
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=processes.console) as progress:
        bar = progress.add_task("Triggering wp-cron", total=None)
        while True:
            run: dict[str, Any] = client.get(url).raise_for_status().json()
            progress.update(bar, total=run["sites_listed"] or None, completed=run["sites_done"])
            if run["status"] in FINAL:
                return run
            processes.pause(0.2)


def _show_run(console: Console, run: dict[str, Any]) -> None:
    columns = ("status", "count", "dispatched", "skipped", "timeouts", "errors")
    _show_table(console, f"Run {run['run_id']}", columns, [run])
    console.print(Text(plain(run["message"] or "", 1000)))
    if failing := run["failing"][:20]:
        title = f"Failing sites ({len(failing)} of {run['failing_total']})"
        _show_table(console, title, ("url", "outcome", "reason", "detail"), failing)


def _show_table(console: Console, title: str, columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> None:
    table = Table(*(Column(name.replace("_", " "), overflow="fold") for name in columns), title=title)
    for row in rows:
        table.add_row(*(Text(plain("" if row[name] is None else str(row[name]))) for name in columns))
    console.print(table)


def _free_port(ports: range) -> int:
    """The first that nothing listens on, on any address: the demo network has several."""
    for port in ports:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return port
    which = f"Port {ports[0]} is" if len(ports) == 1 else f"Ports {ports[0]} to {ports[-1]} are"
    raise SettingsError(f"{which} taken; name another with --port, or leave that out to get the next free one.")


def _for_screen(line: str) -> str:
    """Of a JSON log line the event and its facts; empty for what libraries say as a rule."""
    try:
        facts = dict(json.loads(line))
    except (ValueError, TypeError):
        return plain(line, _LONGEST_LINE)
    level, logger, event, _ = (str(facts.pop(name, "")) for name in ("level", "logger", "event", "timestamp"))
    if level in ("debug", "info") and not logger.startswith("all_sites_cron"):
        return ""
    return plain(" ".join([event, *(f"{name}={value}" for name, value in facts.items())]), _LONGEST_LINE)
