"""When the clock ticks: a crontab's five fields, by a zone's wall clock, also where that is put forward or back."""

from datetime import UTC, datetime, timedelta
from importlib.metadata import requires
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from jobs.schedule import ticks
from jobs.settings import load
from tests.unit.test_settings import loaded, refused


def local(schedule: str, zone: str, after: str, count: int) -> list[str]:
    """The next ticks as that zone's clocks show them, behind a time of UTC."""
    start = int(datetime.fromisoformat(after).replace(tzinfo=UTC).timestamp())
    moments = islice(ticks(schedule, zone, start), count)
    return [f"{datetime.fromtimestamp(tick, ZoneInfo(zone)):%d %H:%M %Z}" for tick in moments]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("*/20 * * * *", ["01 00:20 UTC", "01 00:40 UTC", "01 01:00 UTC"]),
        ("0 3 * * *", ["01 03:00 UTC", "02 03:00 UTC", "03 03:00 UTC"]),
        ("15,45 6-7 * * mon", ["05 06:15 UTC", "05 06:45 UTC", "05 07:15 UTC"]),
        ("0 0 13 * fri", ["02 00:00 UTC", "09 00:00 UTC", "13 00:00 UTC"]),  # as in crontab: either will do
    ],
)
def test_a_schedule_is_read_as_in_a_crontab(schedule: str, expected: list[str]) -> None:
    """The tick of the very second it begins at is not among them."""
    assert local(schedule, "UTC", "2026-01-01 00:00", 3) == expected


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("30 2 * * *", ["29 03:00 CEST", "30 02:30 CEST"]),  # 02:30 is missing
        ("*/30 * * * *", ["29 01:30 CET", "29 03:00 CEST", "29 03:30 CEST"]),
        ("0 3 * * *", ["29 03:00 CEST", "30 03:00 CEST"]),
    ],
)
def test_what_falls_into_a_missing_hour_comes_once(schedule: str, expected: list[str]) -> None:
    """Europe/Berlin, 29 March 2026: after 01:59 comes 03:00."""
    assert local(schedule, "Europe/Berlin", "2026-03-29 00:00", len(expected)) == expected


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("30 2 * * *", ["25 02:30 CEST", "25 02:30 CET", "26 02:30 CET"]),
        ("*/30 * * * *", ["25 02:30 CEST", "25 02:00 CET", "25 02:30 CET", "25 03:00 CET"]),
        ("0 3 * * *", ["25 03:00 CET", "26 03:00 CET"]),
    ],
)
def test_what_falls_into_a_doubled_hour_comes_twice(schedule: str, expected: list[str]) -> None:
    """Europe/Berlin, 25 October 2026: after 02:59 comes 02:00; a schedule by minutes has no gap."""
    assert local(schedule, "Europe/Berlin", "2026-10-25 00:00", len(expected)) == expected


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"])
def test_five_minutes_are_five_minutes_whatever_a_zone_does_to_its_clocks(zone: str) -> None:
    """No gap and no tick twice, on each day of 2026 that is not 24 hours long."""
    days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(365)]
    odd = [day for day in days if local_offset(day, zone) != local_offset(day + timedelta(days=1), zone)]
    assert len(odd) == 2
    for day in odd:
        first = int(day.timestamp())
        assert list(islice(ticks("*/5 * * * *", zone, first), 300)) == [first + 300 * n for n in range(1, 301)]


def local_offset(moment: datetime, zone: str) -> timedelta | None:
    return moment.astimezone(ZoneInfo(zone)).utcoffset()


@pytest.mark.parametrize(
    "text",
    ["often", "* * * *", "* * * * * *", "61 * * * *", "*/0 * * * *", "0 0 31 2 *", "H * * * *", "R * * * *", "@hourly"],
)
def test_a_schedule_that_is_none_is_refused(text: str) -> None:
    """Nor one of seconds, one whose day never comes, or one that each clock would read in its own way."""
    text_of_error = refused(SCHEDULE=text)
    assert text_of_error.startswith(f"ALL_SITES_CRON_SCHEDULE='{text}': must be the five fields of a crontab line")


@pytest.mark.parametrize("text", ["Mars", "Europe", "../UTC", "/etc/localtime", "+02:00"])
def test_a_zone_that_is_none_is_refused(text: str) -> None:
    """A directory of the time zone database and a path are none."""
    expected = f"ALL_SITES_CRON_TIMEZONE='{text}': must be the name of a time zone, as Europe/Berlin"
    assert refused(TIMEZONE=text) == expected


def test_without_a_schedule_there_is_no_tick() -> None:
    """And the zone is UTC."""
    settings = load({"REDIS_URL": "redis://"}).settings
    assert (settings.schedule, settings.timezone) == (None, "UTC")
    assert list(ticks(settings.schedule, settings.timezone, 0)) == []
    assert loaded(SCHEDULE="*/5 * * * *", TIMEZONE="Europe/Berlin").settings.schedule == "*/5 * * * *"


def test_the_parser_is_one_that_rq_itself_needs() -> None:
    """It comes with RQ: an RQ that no longer has it must not go unnoticed."""
    assert "croniter" in (requires("rq") or [])
