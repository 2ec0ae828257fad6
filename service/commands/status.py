"""`status`: what is happening now, from Redis."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import cast

from jobs import admission, keys, rq_names, runs, scripts, updates
from jobs.errors import RunNotFound
from service.commands import clock
from service.commands.environment import OK, say, world


def status() -> int:
    """Print whether runs are refused, the active run, the cooldown, workers and queue, and the last runs."""
    here = world()
    redis, settings = here.redis, here.settings
    seconds, _ = redis.time()
    if isinstance(until := redis.get(keys.DEACTIVATED), bytes):
        say(admission.deactivated(int(until)), "yellow")
    active = redis.get(keys.ACTIVE)
    if isinstance(active, bytes):
        run = runs.read(redis, active.decode())
        listed = run.sites if run.all_listed else f"{run.sites} listed so far"
        say(f"Run {run.id} is {run.status}: {run.count} of {listed} sites, {run.errors} errors")
    else:
        say("No run is queued or running.")
    claim = redis.get(keys.COOLDOWN) or b"0"
    left = int(claim.split()[0]) / 1000 + settings.rate_limit_seconds - seconds
    say(f"Cooldown: {left:.0f} s left" if left >= 1 else "Cooldown: over; the next trigger is admitted")
    waiting = redis.llen(rq_names.queue(settings.redis_queue_key))
    say(f"Workers: {scripts.workers(redis)}; jobs waiting in the queue {settings.redis_queue_key}: {waiting}")
    for seen, remedy in clock.seen(here):
        say(f"{seen} {remedy}", "yellow" if remedy else None)
    if settings.update_feed:
        say(updates.told(updates.cached(here)))
    for run_id in cast(list[bytes], redis.zrevrange(keys.RUNS, 0, 4)):
        with suppress(RunNotFound):  # its record has expired before its place in the history
            run = runs.read(redis, run_id.decode())
            started = datetime.fromtimestamp((run.started_ms or run.queued_ms) / 1000, UTC)
            figures = f"{run.count} sites, {run.total('dispatched')} dispatched, {run.total('timeout')} timeouts"
            say(f"{started:%Y-%m-%d %H:%M:%S} UTC  {run.id}  {run.status:<9}  {figures}, {run.errors} errors")
    return OK
