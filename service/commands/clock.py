"""`clock`: the Procfile's third process. It sweeps, and triggers a run at each tick of SCHEDULE (CONTRACT section 2).

Any number may run: the time they look at is claimed in Redis, by its clock, so that each tick is one clock's. Of the
ticks that passed while none was there the last one is made up for, and the others are counted as missed.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from typing import cast

import structlog
from redis.exceptions import RedisError

from jobs import admission, keys, scripts
from jobs.schedule import ticks
from jobs.world import World
from service.commands.environment import world

WAIT = 5.0  # seconds between two looks, at most

log = structlog.get_logger("all_sites_cron.clock")


def clock() -> int:
    """Look at the clock until a signal ends it, at once: what a look does is in Redis as a whole or not at all."""
    here = world()
    while True:
        try:
            time.sleep(look(here))
        except RedisError as error:
            log.warning("Redis cannot be asked", error=str(error))
            time.sleep(WAIT)


def look(here: World) -> float:
    """Do what has become due since any clock looked, and sweep; seconds until there is more to do."""
    schedule, timezone = here.settings.schedule, here.settings.timezone
    before = here.redis.hget(keys.CLOCK, "time")  # read before the time is, or another clock might be ahead of that
    now, micros = here.redis.time()
    looked = int(before or now), now
    if past := list(takewhile(now.__ge__, ticks(schedule, timezone, looked[0]))):
        facts = f"{datetime.fromtimestamp(past[-1], UTC):%F %T} UTC, {now - past[-1]} s late", len(past) - 1
        trigger = admission.Trigger("defer", "schedule", "clock", cooldown=0, clock=(*looked, *facts))
        what, run_id = (word.decode() for word in here.scripts.admit(admission.request(trigger)[0])[:2])
        tell = log.warning if facts[1] else log.info
        tell("a tick", at=facts[0], missed=facts[1], came=what, run_id=run_id)
    here.scripts.sweep(clock=looked if schedule else (), **admission.fresh_job())
    return min(WAIT, next(ticks(schedule, timezone, now), now + WAIT) - now - micros / 1e6)


def seen(here: World) -> Iterator[tuple[str, str]]:
    """What there is to say of the clock where SCHEDULE is set, and what to do where none was heard of lately."""
    if schedule := here.settings.schedule:
        now, timezone = here.redis.time()[0], here.settings.timezone
        looked, last, missed = cast(list[bytes | None], here.redis.hmget(keys.CLOCK, ["time", "last", "missed"]))
        lives = now - int(looked or 0) < scripts.WORKER_SECONDS
        coming = datetime.fromtimestamp(next(ticks(schedule, timezone, now)), UTC)
        past = f"the last: {(last or b'none').decode()}; missed: {int(missed or 0)}"
        said = f"SCHEDULE {schedule} {timezone}: next tick {coming:%F %T} UTC; {past}"
        yield said, "" if lives else "No clock is running: start the Procfile's clock line."
