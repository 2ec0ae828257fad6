"""The schedule of the built-in clock: a crontab's five fields, by the wall clock of TIMEZONE.

Where clocks are put forward, what falls into the missing hour comes once, as that hour would begin; where they are put
back, what falls into the doubled hour comes twice.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

from rq.cron import croniter  # type: ignore[attr-defined]  # RQ's own parser, which it does not pass on


def ticks(schedule: str | None, timezone: str, after: int) -> Iterator[int]:
    """Unix seconds of the ticks behind `after`; none without a schedule, else without end."""
    start = datetime.fromtimestamp(after, ZoneInfo(timezone))
    return map(int, croniter(schedule, start).all_next(float)) if schedule else iter(())


def as_schedule(text: str) -> str:
    """A schedule as it stands; raises ValueError where it is none, or one whose time never comes."""
    with suppress(ValueError):  # croniter would take seconds, too, and R for a minute of its choice
        if len(text.split()) == 5 and " r" not in f" {text.lower()}" and next(ticks(text, "UTC", 0)):
            return text
    raise ValueError("must be the five fields of a crontab line, as */5 * * * *, for a time that comes")


def as_timezone(text: str) -> str:
    """The name of a time zone as it stands; raises ValueError."""
    if text not in available_timezones():
        raise ValueError("must be the name of a time zone, as Europe/Berlin")
    return text
