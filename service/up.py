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
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from jobs import settings
from jobs.errors import AllSitesCronError, SettingsError
from jobs.plain_text import plain
from service.embedded import EmbeddedValkey
from service.processes import Processes

API = "/wp-json/all-sites-cron/v1"
PORT = 8080
_DEMO_PORT = 8090  # the same after a restart, so that a run that was cut off finds its sites
_PORTS_TRIED = 50
_GRACES = {"web": 10.0, "worker": 10.0, "demo": 1.0}  # seconds; all stopped after 10 + 1 + the server's 3
_READY_WAIT = 60.0
_WORKER_WAIT = 10.0
_FINAL = frozenset({"succeeded", "partial", "failed", "cancelled"})
_FAILING_SHOWN = 20


class UpError(AllSitesCronError):
    """Not everything can be started, or the service gave an answer that `up` cannot go on with."""


def up(*, sites: str | None, data_dir: Path, port: int | None, once: bool = False, console: Console) -> int:
    """Start everything, show a first run, and stay until Ctrl-C or SIGTERM; the exit code.

    `sites`: as the setting SITES; None, and that not set: the demo network. `port` None: PORT or the next free one.
    `once`: end after that run, with 0 if it succeeded, wholly or in part.
    """
    processes = Processes(data_dir / "logs", console)
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _up(processes, sites, data_dir, port, once)
    except KeyboardInterrupt:
        return 0
    except httpx.HTTPError as error:
        console.print(f"{error.request.url} does not answer: {error!r}", style="red", markup=False, highlight=False)
        return 1
    except AllSitesCronError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 2 if isinstance(error, SettingsError) else 1
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave the rest to the tethers
        with console.status("Stopping …"):
            processes.stop()
        if processes.valkey:
            console.print("Stopped; nothing is left running.")
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _up(processes: Processes, sites: str | None, data_dir: Path, port: int | None, once: bool) -> int:
    console = processes.console
    environ = {**os.environ, **({"ALL_SITES_CRON_SITES": sites} if sites else {}), "REDIS_URL": "unix://"}
    loaded = settings.load(environ)
    for warning in loaded.warnings:
        console.print(warning, style="yellow", markup=False, highlight=False)
    port = _free_port(PORT) if port is None else _this_port(port)
    token = next((t.secret.get_secret_value() for t in loaded.settings.tokens if t.scope == "run"), None)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
        with console.status("Starting …"):
            processes.valkey = EmbeddedValkey.start(data_dir)
            environ |= _environ(loaded, processes.valkey.url, port)
            demo = None if loaded.settings.sites else _start_demo(processes, environ)
            _start_service(processes, client, environ)
        run = _follow(processes, client, _trigger(processes, client))
        _show_run(console, run)
        if demo:
            _show_count(console, httpx.get(demo["stats_url"], trust_env=False).json())
        if once:
            return 0 if run["status"] in ("succeeded", "partial") else 1
        _show_what_to_try(
            console, str(client.base_url), demo, data_dir, "-H 'Authorization: Bearer …' " if token else ""
        )
    processes.show_output()
    while True:
        processes.pause(3600)


def _environ(loaded: settings.Loaded, redis_url: str, port: int) -> dict[str, str]:
    """What the processes get beside the caller's own environment: on loopback, no token unless there is one."""
    chosen = loaded.settings
    environ = {
        "REDIS_URL": redis_url,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
    }
    if not chosen.tokens and chosen.require_auth is None:
        environ["ALL_SITES_CRON_REQUIRE_AUTH"] = "false"
    if not chosen.sites:  # the demo network's
        networks = ["127.0.0.0/8", *map(str, chosen.allowed_networks)]
        environ["ALL_SITES_CRON_ALLOWED_NETWORKS"] = ",".join(networks)
        if "max_retries" not in loaded.origins:
            environ["ALL_SITES_CRON_MAX_RETRIES"] = "1"  # its dead site would hold the first run for 40 s
    return environ


def _start_demo(processes: Processes, environ: dict[str, str]) -> dict[str, str]:
    """Start the demo network and make it the service's; what it says about itself."""
    command = [sys.executable, "-m", "service", "demo-network", "--port", str(_free_port(_DEMO_PORT))]
    process = processes.start("demo", command, environ, _GRACES["demo"])
    found: list[dict[str, str]] = []

    def is_ready() -> bool:
        found.extend(json.loads(line) for line in process.new_lines() if line.startswith('{"ready"'))
        return bool(found)

    processes.wait(is_ready, _READY_WAIT, process)
    environ["ALL_SITES_CRON_SITES"] = found[0]["sites_url"]
    return found[0]


def _start_service(processes: Processes, client: httpx.Client, environ: Mapping[str, str]) -> None:
    """Start web and worker and wait until both are there."""
    lines = _procfile()
    web, worker = (
        processes.start(name, ["sh", "-c", f"exec {lines[name]}"], environ, _GRACES[name]) for name in ("web", "worker")
    )
    processes.wait(lambda: _readiness(client) is not None, _READY_WAIT, web)
    processes.wait(lambda: bool((_readiness(client) or {}).get("workers", 1)), _WORKER_WAIT, worker)


def _readiness(client: httpx.Client) -> dict[str, Any] | None:
    """What /readyz says, once it says yes."""
    try:
        answer = client.get("/readyz")
    except httpx.TransportError:
        return None
    return answer.json() if answer.status_code == 200 else None


def _trigger(processes: Processes, client: httpx.Client) -> str:
    """Trigger one deferred run, waiting out a cooldown or another run; its URL."""
    while True:
        answer = client.post(f"{API}/run", params={"defer": "1"})
        if answer.status_code == 202:
            if warning := answer.json().get("warning"):
                processes.console.print(plain(warning), style="yellow", markup=False)
            return urljoin(str(answer.url), answer.headers["Location"])
        if answer.status_code not in (409, 429):
            raise UpError(f"The run was not admitted: {answer.status_code} {plain(answer.text, 500)}")
        message = plain(answer.json()["message"])
        processes.console.print(message, markup=False, highlight=False)
        with processes.console.status("") as status:
            for left in range(int(answer.headers["Retry-After"]), 0, -1):
                status.update(f"Triggering again in {left} s")
                processes.pause(1)


def _follow(processes: Processes, client: httpx.Client, url: str) -> dict[str, Any]:
    """Show a run's progress; its record when it has ended."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("sites"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=processes.console) as progress:
        bar = progress.add_task("Triggering wp-cron", total=None)
        while True:
            answer = client.get(url)
            if answer.status_code != 200:
                raise UpError(f"{url} says {answer.status_code}: {plain(answer.text, 500)}")
            run: dict[str, Any] = answer.json()
            progress.update(bar, total=run["sites_listed"] or None, completed=run["sites_done"])
            if run["status"] in _FINAL:
                return run
            processes.pause(0.2)


def _show_run(console: Console, run: Mapping[str, Any]) -> None:
    table = Table("run", "sites", "dispatched", "skipped", "timeouts", "errors", title=f"Run {run['run_id']}")
    table.add_row(run["status"], *(str(run[name]) for name in ("count", "dispatched", "skipped", "timeouts", "errors")))
    console.print(table)
    if run["message"]:
        console.print(plain(run["message"], 1000), markup=False, highlight=False)
    if not run["failing"]:
        return
    failing = Table("site", "outcome", "reason", "detail", title="Failing sites")
    for site in run["failing"][:_FAILING_SHOWN]:
        cells = (site["url"], site["outcome"], site["reason"], site["detail"])
        failing.add_row(*(Text(plain(str(cell or ""))) for cell in cells))
    console.print(failing)
    if (more := run["failing_total"] - failing.row_count) > 0:
        console.print(f"… and {more} more")


def _show_count(console: Console, stats: Mapping[str, int]) -> None:
    table = Table("what", "count", title="As the demo network's own server counted it")
    table.add_row("sites whose due events ran", f"{stats['ran_sites']} of {stats['public_sites']}")
    table.add_row("events run twice", str(stats["events_run_twice"]))
    table.add_row("calls to excluded sites", str(stats["excluded_called"]))
    table.add_row("calls that break a rule of WordPress", str(stats["wrong_calls"]))
    console.print(table)
    console.print("The other sites fail, hang or are away on purpose.")


def _show_what_to_try(
    console: Console, url: str, demo: Mapping[str, str] | None, data_dir: Path, authorization: str
) -> None:
    lines = [
        "",
        "Everything stays up. To try:",
        f"  {url}/  the operator's page",
        f"  curl {authorization}-X POST '{url}{API}/run?defer=1'",
        f"  curl {authorization}-X POST '{url}{API}/run?ga=1'",
        f"  curl {authorization}{url}{API}/runs",
    ]
    if demo:
        arm = urljoin(demo["stats_url"], "arm")
        lines += [f"  curl -X POST {arm}  makes every demo site due again", f"  curl {demo['stats_url']}"]
    lines += ["", f"Logs and data: {data_dir.resolve()}", "Ctrl-C stops all of it.", ""]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _procfile() -> dict[str, str]:
    """process name → command line, from the Procfile in the package (a wheel) or beside it (a checkout)."""
    package = Path(__file__).parent
    for place in (package / "Procfile", package.parent / "Procfile"):
        if place.exists():
            return dict(re.findall(r"^([a-z]+):\s*(.+)$", place.read_text(encoding="utf-8"), re.MULTILINE))
    raise UpError(f"There is no Procfile in {package} or beside it, so it is not known what to run.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))  # on every address: the demo network has several; nothing listens here
        except OSError:
            return False
        return True


def _free_port(first: int) -> int:
    for port in range(first, first + _PORTS_TRIED):
        if _is_free(port):
            return port
    raise UpError(f"No port from {first} to {first + _PORTS_TRIED - 1} is free; name one with --port.")


def _this_port(port: int) -> int:
    if not _is_free(port):
        raise SettingsError(f"--port {port}: the port is taken; leave the option out to get the next free one.")
    return port
