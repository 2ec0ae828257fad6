"""Verification: did WordPress run what was due? A 2xx only says that the call was taken (CONTRACT section 5).

It comes after the walk, outside the run lock, in looks at the schedules of the sites that were triggered: one soon, one
after VERIFY_GRACE with a second trigger where events are still due and no cron of the site is at work, and two later.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import structlog

from jobs import filters, health, keys
from jobs.errors import FilterError, SourceError
from jobs.outcomes import OPEN
from jobs.resolver import Resolver
from jobs.scripts import FOLLOW_UP_SECONDS, SETTLE_SECONDS, Claimed
from jobs.sources import DUE_PAGE, Source, State
from jobs.window import Window
from jobs.world import World

LOCK_SECONDS = 60  # WordPress's WP_CRON_LOCK_TIMEOUT: so long another cron of the site keeps out
AGAIN_SECONDS = 10  # from the second trigger to the look at what it did
LAST_LOOK = 3
SHARE = 2  # second triggers in flight to one origin server, besides those of a run
TRIGGER_SECONDS = 50.0  # for the second triggers of one look; less than FOLLOW_UP_SECONDS

PRUNE = "prune"
log = structlog.get_logger("all_sites_cron.verify")


def follow_up(world: World, name: str, *, stop: Callable[[], bool]) -> None:
    """Do what follows ended runs: `prune`, or the next look at the unverified sites of a run.

    `stop`: this process is asked to end; a sweep has the rest done. Raises redis errors.
    """
    try:
        with closing(world.open_source()) as source:
            if name == PRUNE:
                health.prune(world.redis, source)
                world.redis.zrem(keys.FOLLOW_UP, PRUNE)
            else:
                _look(world, source, name, stop)
    except (FilterError, SourceError) as error:
        log.warning("what follows a run is tried again", follow_up=name, error=str(error))


def _look(world: World, source: Source, run_id: str, stop: Callable[[], bool]) -> None:
    """One look at every unverified site; when the next is due stands in Redis afterwards."""
    redis, grace = world.redis, world.settings.verify_grace
    look = int(redis.hget(keys.run(run_id), "look") or 0)
    ends = time.monotonic() + TRIGGER_SECONDS
    for _ in range(redis.llen(keys.unverified(run_id))):
        head = redis.lindex(keys.unverified(run_id), 0)
        if stop() or not isinstance(head, bytes):
            return
        entries: list[list[Any]] = json.loads(head)
        now, states = _states(source, [entry[0] for entry in entries])
        seen = [(entry, judge(entry, states.get(entry[0]), now, look)) for entry in entries]
        again = [entry for entry, verdict in seen if verdict == "again"]
        if again and time.monotonic() < ends:
            until = (redis.time()[0] + FOLLOW_UP_SECONDS) * 1000
            redis.zadd(keys.FOLLOW_UP, {run_id: until}, xx=True)  # nobody else triggers them meanwhile
            for entry in _triggered(world, again, stop=lambda: stop() or time.monotonic() > ends):
                entry[3:] = [now]
        left = [entry for entry, verdict in seen if verdict in ("again", "later")]
        results = [[*entry[:2], verdict] for entry, verdict in seen if verdict not in ("again", "later")]
        rest = {"left": json.dumps(left)} if left else {}
        if not world.scripts.verify(id=run_id, head=head.decode(), results=results, **rest):
            return
    wait = AGAIN_SECONDS if look == 1 else grace
    world.scripts.verify(id=run_id, look=look + 1, wait_ms=wait * 1000)


def _states(source: Source, ids: Sequence[str]) -> tuple[int, Mapping[str, State]]:
    """As Source.states, of a whole batch; the time is that of its first page."""
    pages = [source.states(ids[first : first + DUE_PAGE]) for first in range(0, len(ids), DUE_PAGE)]
    return pages[0][0], {site_id: state for _, states in pages for site_id, state in states.items()}


def judge(entry: Sequence[Any], state: State | None, now: int, look: int) -> str:
    """What an [id, URL, time by which its events were due, time of a second trigger?] has come to.

    `verified`, `working`, `stuck`, `unknown` are final; `again`: trigger it now; `later`: look again.
    """
    if state is None:
        return "unknown"
    if state.due > entry[2]:
        return "verified"
    tried = len(entry) > 3
    if abs(now - state.locked) < LOCK_SECONDS:  # one far in the future is nobody's
        return "working" if look == LAST_LOOK else "later"
    if tried and now - entry[3] >= SETTLE_SECONDS:
        return "stuck"
    if look == LAST_LOOK:
        return "unknown"
    return "later" if look == 0 or tried else "again"


def _triggered(world: World, entries: Sequence[list[Any]], stop: Callable[[], bool]) -> list[list[Any]]:
    """The second trigger of these sites; those that had it before `stop`. What it came to shows in their schedules."""
    settings = filters.settings_after(world.settings, filters.PER_WALK)
    with closing(world.new_engine(settings)) as engine, closing(Resolver(world.guard, wake=engine.wake)) as resolver:
        window = Window(
            engine,
            resolver,
            concurrency=settings.concurrency,
            max_retries=0,
            clock=time.monotonic,
            jitter=random.Random(),  # noqa: S311 - nothing is retried
            on_failure=lambda url, outcome, detail: log.warning(
                "second trigger failed", url=url, outcome=outcome.name.lower(), detail=detail
            ),
        )
        window.widen(min(SHARE, settings.origin_concurrency))
        window.hold([Claimed(0, "", [list(entry[:2]) for entry in entries], OPEN * len(entries))])
        while not window.idle and not stop():
            window.start_ready()
            for result in engine.poll(0.5):
                window.take(result)
        return [entry for entry, letter in zip(entries, window.batches[0].out, strict=True) if letter != ord(OPEN)]
