"""What the templates are given: Redis asked in bounded pipelines, and figures put into words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any, NamedTuple, get_args

from jinja2 import Environment, PackageLoader, StrictUndefined

from jobs import admission, filters, health, keys, rq_names, runs, scripts
from jobs.health import Health, State
from jobs.plain_text import plain
from jobs.runs import Failure, Run
from jobs.schedule import ticks
from jobs.settings import Settings
from service import metrics
from service.web import Web

STATES: tuple[State, ...] = get_args(State)
KINDS = ("dispatched", "timeout", "failed", "skipped")
SEARCHED = 1000  # sites that one search looks at
BAR, WIDTH, HEIGHT = 20, 400, 80  # of the chart: a bar with its gap, and all of it
LEAST, TALLEST = 3, HEIGHT - 9  # heights of a part of a bar, and of a bar before its parts were made to be seen


@dataclass(frozen=True)
class Overview:
    """What is happening at `now` (Unix seconds).

    `cooldown`: seconds until a run may start. `deactivated`: why none may, or nothing. `sites`: how many are in each
    state. `queued`: jobs that wait. `workers`: how many are `busy` and `idle`.
    `clock`: None without a SCHEDULE.
    """

    now: int
    active: Run | None
    cooldown: int
    deactivated: str
    sites: Mapping[State, int]
    queued: int
    workers: Mapping[str, int]
    clock: "Clock | None"


async def overview(web: Web) -> Overview:
    """Five round trips, each bounded whatever the number of sites and runs."""
    now, settings = await web.now(), web.settings
    pipeline = web.redis.pipeline(transaction=False)
    for key in (keys.ACTIVE, keys.COOLDOWN, keys.DEACTIVATED):
        pipeline.get(key)
    pipeline.llen(rq_names.queue(settings.redis_queue_key))
    pipeline.hmget(keys.CLOCK, ["time", "last", "missed"])
    for state in STATES:
        key, highest = health.chosen(state, now, settings.overdue_after)
        pipeline.zcount(key, "-inf", highest)
    active, cooldown, deactivated, queued, clock, *counts = await pipeline.execute()
    started = int((cooldown or b"0").split()[0]) // 1000
    until = int(deactivated or -1)
    return Overview(
        now,
        await _active(web, active),
        max(0, started + filters.cooldown(settings) - now),
        admission.deactivated(until) if until == 0 or until > now * 1000 else "",
        dict(zip(STATES, counts, strict=True)),
        queued,
        await metrics.workers(web.redis),
        _clock(settings, now, *clock),
    )


class Clock(NamedTuple):
    """The clock of SCHEDULE. `next`: Unix seconds of the next tick. `last`: what came of the last one."""

    next: int
    last: str
    missed: int
    lives: bool


def _clock(
    settings: Settings, now: int, looked: bytes | None, last: bytes | None, missed: bytes | None
) -> Clock | None:
    if not settings.schedule:
        return None
    lives = now - int(looked or 0) < scripts.WORKER_SECONDS
    coming = next(ticks(settings.schedule, settings.timezone, now))
    return Clock(coming, (last or b"").decode(), int(missed or 0), lives)


async def _active(web: Web, run_id: bytes | None) -> Run | None:
    record: Any = await web.redis.hgetall(keys.run(run_id.decode())) if run_id else None
    if run_id is None or not record:
        return None
    run = runs.parse(run_id.decode(), record)
    return None if run.final else run


class Progress(NamedTuple):
    """How far a run is. `rate`: sites a second. `left`: seconds, None while it is not known."""

    rate: float
    left: int | None


def progress(run: Run, now: int) -> Progress:
    """By the run's own average so far, or over all of it."""
    ended, least = (run.ended_ms, 0.001) if run.ended_ms else (now * 1000, 1.0)  # the clock is read in whole seconds
    rate = run.count / max(least, (ended - run.started_ms) / 1000) if run.started_ms else 0.0
    left = (run.sites - run.count) / rate if rate and run.all_listed and not run.final else None
    return Progress(rate, None if left is None else round(left))


class Bar(NamedTuple):
    """A run in the chart. `parts`: kind of outcome → (y, height), from the bottom up; `none` where nothing was done."""

    run: Run
    x: int
    parts: Mapping[str, tuple[float, float]]


def bars(shown: Sequence[Run]) -> list[Bar]:
    """The newest on the right; as high as the run was long, and an outcome that few sites had is seen, too."""
    lengths = [seconds(run) or 0.0 for run in shown]
    longest, found = max(lengths, default=0.0) or 1.0, []
    for n, (run, length) in enumerate(zip(shown, lengths, strict=True), 1):
        height, top, parts = max(LEAST, TALLEST * length / longest), float(HEIGHT), {}
        for kind in KINDS if run.count else ():
            if sites := run.total(kind):
                part = max(LEAST, height * sites / run.count)
                top -= part
                parts[kind] = (round(top, 1), round(part, 1))
        found.append(Bar(run, WIDTH - n * BAR, parts or {"none": (HEIGHT - LEAST, LEAST)}))
    return found


def seconds(run: Run) -> float | None:
    """How long a run was walked; None before it ends."""
    return (run.ended_ms - (run.started_ms or run.ended_ms)) / 1000 if run.ended_ms else None


class Found(NamedTuple):
    """Sites of a state. `total`: of the state. `first`, `last`: numbers of those that were looked at."""

    total: int
    first: int
    last: int
    sites: Sequence[Health]


async def search(web: Web, state: State, text: str, now: int, first: int, size: int) -> Found:
    """A page of a state's sites, the longest in it first; with a text, those of SEARCHED sites that have it in them."""
    total, sites = await web.sites(state, now, first, SEARCHED if text else size)
    last = min(total, first + (SEARCHED if text else size))
    wanted = text.lower()
    matching = [site for site in sites if wanted in site.site_id.lower() or wanted in site.url.lower()]
    return Found(total, first, last, matching)


async def failures_of(web: Web, site_id: str, runs_shown: Sequence[Run]) -> list[tuple[Run, Failure | None]]:
    """What these runs keep of a site: its failure, or None."""
    pipeline = web.redis.pipeline(transaction=False)
    for run in runs_shown:
        pipeline.hget(keys.failures(run.id), site_id)
    found = await pipeline.execute() if runs_shown else []
    failures = (Failure(site_id, *json.loads(text)) if text else None for text in found)
    return list(zip(runs_shown, failures, strict=True))


@cache
def environment() -> Environment:
    """The templates: everything is escaped, a name that is missing is an error."""
    loader = PackageLoader("console")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"plain": plain, "moment": moment, "duration": duration, "number": "{:,}".format}
    made.globals |= {"address": address, "seconds": seconds}
    return made


def address(name: str) -> str:
    """Where the stylesheet or the script is; another place when its content changes."""
    return f"/static/{assets()[name].digest}/{name}"


class Asset(NamedTuple):
    """A file that pages load."""

    kind: str
    content: bytes

    @property
    def digest(self) -> str:
        """Of its content."""
        return sha256(self.content).hexdigest()[:12]


@cache
def assets() -> Mapping[str, Asset]:
    """The files by name."""
    folder, kinds = resources.files("console") / "static", {"style.css": "text/css", "page.js": "text/javascript"}
    return {name: Asset(kind, (folder / name).read_bytes()) for name, kind in kinds.items()}


def moment(unix: float) -> str:
    """As a machine reads it, too: ISO 8601 with a space, in UTC."""
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M:%S}"


def duration(length: float) -> str:
    """The two largest units: `4.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if length < 10:
        return f"{max(0.0, length):.1f} s"
    whole = round(length)
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    first = next(n for n, (_, size) in enumerate(units) if whole >= size)
    words = []
    for unit, size in units[first : first + 2]:
        words += [f"{whole // size} {unit}"] if whole // size else []
        whole %= size
    return " ".join(words)


def render(template: str, **facts: Any) -> str:
    """A page as HTML."""
    return environment().get_template(template).render(facts)
