"""`status`: what is happening now, from Redis."""

from datetime import UTC, datetime
from typing import cast

from redis.exceptions import RedisError
from rich.console import Console

from jobs import keys, rq_names, runs
from jobs.errors import RunNotFound
from jobs.redis_connection import unavailable
from jobs.runs import Run
from jobs.scripts import WORKER_SECONDS
from jobs.world import World
from service.commands.environment import OK, UNREACHABLE, complain, world

SHOWN = 5


def status() -> int:
    """Print the active run, the last ones, the cooldown, workers and queue; the exit code."""
    here = world()
    try:
        _show(here, Console(soft_wrap=True, highlight=False, emoji=False))
    except RedisError as error:
        if not unavailable(error):
            raise
        complain(f"Redis cannot be asked: {error}")
        return UNREACHABLE
    return OK


def _show(world: World, out: Console) -> None:
    redis, settings = world.redis, world.settings
    seconds, _ = redis.time()
    active = redis.get(keys.ACTIVE)
    if isinstance(active, bytes):
        run = runs.read(redis, active.decode())
        listed = run.sites if run.all_listed else f"{run.sites} listed so far"
        out.print(f"Run {run.id} is {run.status}: {run.count} of {listed} sites, {run.errors} errors")
    else:
        out.print("No run is queued or running.")
    claim = redis.get(keys.COOLDOWN)
    left = 0.0
    if claim and settings.rate_limit_seconds > 0:
        left = int(claim.split()[0]) / 1000 + settings.rate_limit_seconds - seconds
    out.print(f"Cooldown: {left:.0f} s left" if left > 0 else "Cooldown: over; the next trigger is admitted")
    workers = redis.zcount(keys.WORKERS, (seconds - WORKER_SECONDS) * 1000, "+inf")
    waiting = redis.llen(rq_names.queue(settings.redis_queue_key))
    out.print(f"Workers: {workers}; jobs waiting in the queue {settings.redis_queue_key}: {waiting}")
    for run_id in cast(list[bytes], redis.zrevrange(keys.RUNS, 0, SHOWN - 1)):
        try:
            out.print(_line(runs.read(redis, run_id.decode())), markup=False)
        except RunNotFound:
            continue  # its record has expired before its place in the history


def _line(run: Run) -> str:
    started = datetime.fromtimestamp((run.started_ms or run.queued_ms) / 1000, UTC)
    figures = f"{run.count} sites, {run.total('dispatched')} dispatched, {run.total('timeout')} timeouts"
    return f"{started:%Y-%m-%d %H:%M:%S} UTC  {run.id}  {run.status:<9}  {figures}, {run.errors} errors"
