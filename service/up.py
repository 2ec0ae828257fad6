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
from typing import Any, NoReturn
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
_STATS = "ran_sites public_sites events_run_twice excluded_called wrong_calls"
_LONGEST_LINE = 2000


class UpError(AllSitesCronError):
    """Not everything can be started, or a process has ended; the text says which, with its last lines."""


class Processes:
    """All of them, in the order of their start: name → its log file and itself."""

    def __init__(self, console: Console, logs: Path) -> None:
        self.console, self.logs = console, logs
        self.running: dict[str, tuple[Path, Popen[bytes]]] = {}

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str], grace: float) -> Path:
        """Start a command under a tether; the file with its output."""
        self.logs.mkdir(exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("wb") as out:
            self.running[name] = log, tether.spawn(command, grace, stdout=out, stderr=out, env=environ)
        return log

    def wait(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Until the condition holds; raises UpError when a process ends, or after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(httpx.TransportError):  # it does not listen yet
                if condition():
                    return
            for name, (log, popen) in self.running.items():
                if (code := popen.poll()) is not None:
                    last = log.read_text(errors="replace").splitlines()[-15:]
                    what = f"{name} has ended with exit code {code}. The last lines of {log}:"
                    raise UpError("\n  ".join([what, *(plain(line, _LONGEST_LINE) for line in last)]))
            if time.monotonic() > deadline:
                raise UpError(f"Not everything is ready after {seconds:.0f} s; see the logs in {self.logs}.")
            time.sleep(0.05)

    def pause(self, seconds: float) -> None:
        """Sleep; raises UpError when a process ends."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end, float("inf"))

    def show_output(self) -> NoReturn:
        """Print what a person wants to see of what they say from now on; raises UpError when a process ends."""
        logs = [(name, log.open(errors="replace")) for name, (log, _) in self.running.items()]
        for _, log in logs:
            log.seek(0, os.SEEK_END)
        while True:
            self.pause(0.1)
            for name, log in logs:
                for text in filter(None, map(_for_screen, log)):
                    self.console.print(Text(f"{name:<6} │ {text}"), soft_wrap=True)


def up(*, sites: str | None, data_dir: Path, port: int | None, once: bool = False) -> int:
    """Start everything, show a first run, and stay until Ctrl-C or SIGTERM; the exit code.

    `sites`: as the setting SITES; None, and that not set: the demo network. `port` None: the first free one of PORTS.
    `once`: end after that run, with 0 if it succeeded, wholly or in part. Keeps the signals: for a process of its own.
    """
    processes = Processes(console := Console(), data_dir / "logs")
    for number in (signal.SIGINT, signal.SIGTERM):
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
        with console.status("Stopping …"):
            for _, popen in reversed(processes.running.values()):  # each after those that call it
                tether.end(popen)
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
            processes.running["valkey"] = server.log, server.process
            environ["REDIS_URL"] = server.url
            stats_url = None if loaded.settings.sites else _start_demo(processes, environ, loaded)
            _start_service(processes, environ, client)
        url_of_run = _trigger(processes, client)
        run = _follow(processes, client, url_of_run)
        _show_run(console, run)
    if stats_url:
        counted = httpx.get(stats_url, trust_env=False).json()
        _show_table(console, "As the demo network's own server counted it", _STATS, [counted])
        console.print("The sites that did not run fail, hang or are away on purpose.")
    if once:
        return 0 if run["status"] in ("succeeded", "partial") else 1
    curl = "curl -H 'Authorization: Bearer …'" if token else "curl"
    to_try = [f"{curl} -X POST '{url}{API}/run?defer=1'", f"{curl} {url_of_run}", f"curl {url}/readyz"]
    if stats_url:
        to_try += [f"curl {stats_url}", f"curl -X POST {urljoin(stats_url, 'arm')}  makes all demo sites due again"]
    console.print(Text("\n  ".join(["\nEverything stays up. To try:", *to_try])), soft_wrap=True)
    console.print(Text(f"\nLogs and data: {data_dir.resolve()}\nCtrl-C stops all of it."), soft_wrap=True)
    return processes.show_output()


def _start_demo(processes: Processes, environ: dict[str, str], loaded: settings.Loaded) -> str:
    """Start the demo network and make it the service's; where it tells its counts."""
    command = [sys.executable, "-m", "service", "demo-network", "--port", str(_free_port(_DEMO_PORTS))]
    log = processes.start("demo", command, environ, grace=1)
    processes.wait(lambda: '"ready"' in log.read_text())
    demo = json.loads(log.read_text().splitlines()[-1])
    environ["ALL_SITES_CRON_SITES"] = demo["sites_url"]
    environ["ALL_SITES_CRON_ALLOWED_NETWORKS"] = ",".join(["127.0.0.0/8", *map(str, loaded.settings.allowed_networks)])
    if "max_retries" not in loaded.origins:
        environ["ALL_SITES_CRON_MAX_RETRIES"] = "1"  # its dead site would hold the first run for 40 s
    return str(demo["stats_url"])


def _start_service(processes: Processes, environ: dict[str, str], client: httpx.Client) -> None:
    """Start web and worker and wait until the one answers and knows of the other."""
    procfile = Path(__file__).with_name("Procfile")  # in a wheel; in a checkout beside the package
    text = (procfile if procfile.exists() else procfile.parents[1] / "Procfile").read_text(encoding="utf-8")
    clock = "|clock" if settings.text_of("schedule", environ) else ""
    for name, line in re.findall(rf"^(web|worker{clock}):\s*(.+)$", text, re.MULTILINE):
        processes.start(name, ["sh", "-c", f"exec {line}"], environ, grace=10)
    processes.wait(lambda: client.get("/readyz").json().get("workers"))


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
    """Show a run's progress; its record when it has ended and one site, where any can be, is verified."""
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=processes.console) as progress:
        bar = progress.add_task("Triggering wp-cron", total=None)
        while True:
            run: dict[str, Any] = client.get(url).raise_for_status().json()
            progress.update(bar, total=run["sites_listed"] or None, completed=run["sites_done"])
            seen = run["verification"] or {"status": "done"}
            if run["status"] in FINAL and (seen["status"] == "done" or seen["verified"]):
                return run
            processes.pause(0.2)


def _show_run(console: Console, run: dict[str, Any]) -> None:
    _show_table(console, f"Run {run['run_id']}", "status count dispatched skipped timeouts errors", [run])
    console.print(Text(plain(run["message"] or "", 1000)))
    if failing := run["failing"][:20]:
        title = f"Failing sites ({len(failing)} of {run['failing_total']})"
        _show_table(console, title, "url outcome reason detail", failing)
    if verified := run["verification"]:
        _show_table(console, "What WordPress ran, by its schedules", " ".join(verified), [verified])


def _show_table(console: Console, title: str, columns: str, rows: Iterable[dict[str, Any]]) -> None:
    """The rows' fields of these names; `columns`: names with blanks between."""
    names = columns.split()
    table = Table(*(Column(name.replace("_", " "), overflow="fold") for name in names), title=title)
    for row in rows:
        table.add_row(*(Text(plain("" if row[name] is None else str(row[name]))) for name in names))
    console.print(table)


def _free_port(ports: range) -> int:
    """The first that nothing listens on, on any address: the demo network has several."""
    for port in ports:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return port
    raise SettingsError(f"Port {ports[0]} is taken; name another with --port, or leave that out for the next free one.")


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
