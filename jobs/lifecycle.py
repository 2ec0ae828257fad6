"""Activate, deactivate, uninstall, the takeover from the plugin (CONTRACT section 7) and its old names.

All of it may be done twice, and while a run is in progress; nothing here deletes a live lock.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from redis import Redis

from jobs import admission, keys, rq_names, scripts
from jobs.errors import Refused, SettingsError
from jobs.world import World

MALFORMED_SECONDS = 30 * 86400
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
LEGACY_DAYS = 30
RENAMED = {"dss-cron": "all-sites-cron", "dss_cron": "all_sites_cron", "DSS_CRON": "ALL_SITES_CRON"}
RENAMED |= {"ALL_SITES_CRON_REDIS_URL": "REDIS_URL", "REDIS_MAX_RETRIES": "MAX_RETRIES"}


def activate(redis: Redis) -> None:
    """Lift a deactivate and clear the cooldown."""
    redis.delete(keys.DEACTIVATED, keys.COOLDOWN)


def deactivate(redis: Redis, until: str | None = None) -> datetime | None:
    """Refuse new runs, until the returned moment or for good; a run in progress goes on.

    `until`: ISO 8601, in UTC where it names no zone, or a duration as `2h`. Raises SettingsError.
    """
    moment = None if until is None else _moment(until, datetime.fromtimestamp(redis.time()[0], UTC))
    milliseconds = int(moment.timestamp() * 1000) if moment else 0
    redis.set(keys.DEACTIVATED, milliseconds, pxat=milliseconds or None)
    return moment


def _moment(text: str, now: datetime) -> datetime:
    with suppress(ValueError, OverflowError):
        if duration := re.fullmatch("([0-9]+)([dhms])", text):
            moment = now + timedelta(seconds=int(duration[1]) * UNITS[duration[2]])
        else:
            moment = datetime.fromisoformat(text)
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        if moment > now:
            return moment
    allowed = "a time to come as 2030-01-31T08:00:00Z (UTC where no zone is named), or a duration as 30m, 2h, 7d"
    raise SettingsError(f"--until={text!r}: must be {allowed}")


def uninstall(world: World, tell: Callable[[str], None]) -> None:
    """Deactivate, wait until nothing is walked (retire.lua), stop the workers, delete every key of ours alone."""
    redis, told = world.redis, ""
    deactivate(redis)
    retire = redis.register_script(scripts.text("retire", world.settings))
    while waiting := retire(args=["{}"]).decode():
        if waiting != told:
            tell(f"Waiting for {waiting}")
        told = waiting
        time.sleep(0.5)
    _delete(redis, keys.RUN)  # without its record nothing is written of what follows a run
    redis.delete(keys.FOLLOW_UP)  # nor queued
    rq_names.remove(redis, world.settings.redis_queue_key)
    _delete(redis, keys.LEGACY)
    _delete(redis, keys.ROOT, but=frozenset({keys.LOCK, keys.DEACTIVATED}))
    redis.delete(keys.DEACTIVATED)  # the last one: nothing was admitted meanwhile


def _delete(redis: Redis, prefix: str, but: frozenset[str] = frozenset()) -> int:
    found = set(redis.scan_iter(f"{prefix}*", count=1000)) - {key.encode() for key in but}
    for key in found:
        redis.delete(key)
    return len(found)


def migrate(world: World) -> Iterator[tuple[str, str]]:
    """Take over, once, what the plugin left in Redis; yields what was done, with a remedy where something is open."""
    redis = world.redis
    if deleted := _delete(redis, keys.LEGACY):
        yield f"{deleted} keys of the plugin's old name ({keys.LEGACY}…) were deleted", ""
    entries: list[Any] = redis.lrange(keys.PLUGIN_JOBS, 0, -1)
    jobs, bad = ([entry for entry in entries if _is_job(entry) is wanted] for wanted in (True, False))
    pipeline = redis.pipeline()
    if bad:
        pipeline.rpush(keys.MALFORMED, *bad)
        pipeline.expire(keys.MALFORMED, MALFORMED_SECONDS)
        seen = f"{len(bad)} entries of the plugin's queue are no jobs, the first: {bad[0][:80]!r}"
        yield seen, f"They are kept in {keys.MALFORMED} for 30 days."
    if jobs:
        mode = "redis" if world.settings.use_redis_queue else "deferred"
        trigger = admission.Trigger("defer", mode, by="migration", cooldown=0)
        arguments, walker = admission.request(trigger)
        try:
            run = admission.decide(world.scripts.admit(arguments), trigger, walker)
            yield f"{len(jobs)} jobs that the plugin queued are one run now, {run.run_id}", ""
        except Refused as refused:
            yield f"{len(jobs)} jobs that the plugin queued wait: {refused}", "The next `check` takes them over."
            jobs = []
    for entry in bad + jobs:  # after the admission: an end in between makes a second run, not a lost one
        pipeline.lrem(keys.PLUGIN_JOBS, 1, entry)
    pipeline.execute()


def _is_job(entry: bytes) -> bool:
    """Whether the plugin would take it for one (its Redis_Queue, `pop`); version 1.5 wrote no `retries`."""
    try:
        job = {"queued_at": 0, "retries": 0, **json.loads(entry)}
        return all(type(job[name]) is int for name in ("timestamp", "queued_at", "retries"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def legacy_uses(redis: Redis) -> Iterator[tuple[str, str]]:
    """(what was used and how often, what to do) of each old name that was used within 30 days."""
    for name, value in sorted(cast(Mapping[bytes, bytes], redis.hgetall(keys.LEGACY_USES)).items()):
        old, (uses, last_ms) = name.decode(), map(int, value.split())
        if last_ms / 1000 < time.time() - LEGACY_DAYS * 86400:
            continue
        new = old
        for before, after in RENAMED.items():
            new = new.replace(before, after)
        if old.startswith("/"):
            said, remedy = f"route {old} was called {uses} times", f"Call {new}."
        else:
            kind = "variable" if old.isupper() else "filter"
            said, remedy = f"{kind} {old} was used by {uses} starts of a web process or worker", f"Use {new}."
        when = f"{datetime.fromtimestamp(last_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
        yield f"the legacy {said}, the last on {when}", f"{remedy} Told until {LEGACY_DAYS} days after the last use."
