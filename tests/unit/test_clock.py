"""One look of the clock: which ticks it does, what it keeps of them, and that each is one clock's."""

import re
from collections.abc import Callable
from typing import NoReturn

import pytest

from jobs import keys
from jobs.addresses import AddressGuard
from jobs.settings import Loaded
from jobs.world import World
from service.commands.clock import look, seen
from tests.unit.fakes import Cron

MakeCron = Callable[..., Cron]
NOON = 1_780_574_400  # 2026-06-04 12:00:00 UTC
EVERY_FIVE = "*/5 * * * *"


class Clock:
    """A clock process without its loop; `at`: the time of Redis that it is told, which moves only by hand."""

    def __init__(self, cron: Cron, at: float = NOON + 10) -> None:
        self.cron, self.at = cron, at
        cron.redis.time = lambda: (int(self.at), int(self.at % 1 * 1e6))
        parts = cron.redis, cron.scripts, AddressGuard(())
        self.world = World(Loaded(cron.settings), *parts, open_source=self._never, new_engine=self._never)

    @staticmethod
    def _never(*_: object) -> NoReturn:
        raise AssertionError("a clock lists and triggers no site")

    def look(self, at: float) -> float:
        self.at = at
        return look(self.world)

    def kept(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.cron.redis.hgetall(keys.CLOCK).items()}

    def runs(self) -> list[str]:
        """Every run there is, the oldest first."""
        return [run_id.decode() for run_id in self.cron.redis.zrange(keys.RUNS, 0, -1)]

    def end(self) -> None:
        """As if the run that waits had ended."""
        self.cron.redis.delete(keys.ACTIVE, keys.LOCK)


@pytest.fixture
def clock(make_cron: MakeCron) -> Clock:
    """A clock that ticks every five minutes and has looked once, at 12:00:10."""
    clock = Clock(make_cron(schedule=EVERY_FIVE))
    assert clock.look(NOON + 10) == 5
    assert clock.runs() == []
    return clock


def test_a_tick_queues_a_run(clock: Clock) -> None:
    """Of mode `schedule`, by `clock`; once, at its time and not before."""
    clock.look(NOON + 299.5)
    assert clock.runs() == []
    clock.look(NOON + 300.01)
    clock.look(NOON + 305)
    (run_id,) = clock.runs()
    run = clock.cron.run(run_id)
    assert (run.status, run.mode, run.by) == ("queued", "schedule", "clock")
    assert clock.kept()["last"] == f"2026-06-04 12:05:00 UTC, 0 s late: queued {run_id}"
    assert len(clock.cron.jobs()) == 1


def test_a_look_says_how_long_to_wait(clock: Clock) -> None:
    """Until the next tick, but at most until the next sweep."""
    assert clock.look(NOON + 100) == 5
    assert clock.look(NOON + 299.25) == pytest.approx(0.75)
    assert clock.look(NOON + 300) == 5


def test_a_tick_comes_in_the_time_zone(make_cron: MakeCron) -> None:
    """14:00 in Berlin is noon in summer."""
    clock = Clock(make_cron(schedule="0 14 * * *", timezone="Europe/Berlin"))
    clock.look(NOON - 5)
    clock.look(NOON)
    assert len(clock.runs()) == 1


def test_the_cooldown_is_not_the_clocks(clock: Clock) -> None:
    """A run that has just ended delays no tick; the clock's own run starts the cooldown of the others anew."""
    first = clock.cron.trigger().run_id
    clock.end()
    clock.look(NOON + 300)
    assert len(clock.runs()) == 2
    assert first not in clock.cron.redis.get(keys.COOLDOWN).decode()


def test_a_run_that_waits_is_joined(clock: Clock) -> None:
    run_id = clock.cron.trigger().run_id
    clock.look(NOON + 300)
    assert clock.runs() == [run_id]
    assert clock.kept()["last"].endswith(f": joined {run_id}")


def test_a_tick_that_finds_a_run_under_way_is_kept_as_that(clock: Clock) -> None:
    """It is no error, and is not made up for."""
    run_id = clock.cron.running(1)
    clock.look(NOON + 300)
    assert clock.kept()["last"].endswith(f": running {run_id}")
    clock.end()
    clock.look(NOON + 310)
    assert clock.runs() == [run_id]


def test_deactivated_it_stops(clock: Clock) -> None:
    """What it refused is kept, and not made up for once that is lifted; the next tick is done again."""
    clock.cron.redis.set(keys.DEACTIVATED, 0)
    clock.look(NOON + 300)
    assert clock.kept()["last"].endswith(": deactivated")
    clock.cron.redis.delete(keys.DEACTIVATED)
    clock.look(NOON + 400)
    assert clock.runs() == []
    clock.look(NOON + 600)
    assert len(clock.runs()) == 1


def test_of_what_was_missed_one_run_is_made_up_for(clock: Clock) -> None:
    """By the last tick, however late; the others are counted."""
    clock.look(NOON + 1000)  # 12:05, 12:10, 12:15
    (run_id,) = clock.runs()
    assert clock.kept()["last"] == f"2026-06-04 12:15:00 UTC, 100 s late: queued {run_id}"
    assert clock.kept()["missed"] == "2"
    clock.look(NOON + 2000)
    assert clock.kept()["missed"] == "4"


def test_of_several_clocks_each_tick_is_ones(clock: Clock) -> None:
    """One that read what was done just before another did it does nothing; nor does it turn that back."""
    other = Clock(clock.cron)
    get = clock.cron.redis.hget

    def overtaken(key: str, field: str) -> bytes | None:
        before: bytes | None = get(key, field)
        clock.cron.redis.hget = get
        other.look(NOON + 301)
        return before

    clock.cron.redis.hget = overtaken
    clock.look(NOON + 301)
    (run_id,) = clock.runs()
    assert clock.kept()["last"].endswith(f": queued {run_id}"), "the second would have joined it"
    assert clock.kept()["time"] == str(NOON + 301)


def test_what_it_keeps_goes_by_itself(clock: Clock) -> None:
    """A month after the last look."""
    assert 29 * 86400 < clock.cron.redis.ttl(keys.CLOCK) <= 30 * 86400


def test_a_redis_clock_that_was_put_back_stops_nothing(clock: Clock) -> None:
    clock.look(NOON + 86_400)
    clock.end()
    before = len(clock.runs())
    clock.look(NOON + 290)
    clock.look(NOON + 300)
    assert len(clock.runs()) == before + 1


def test_without_a_schedule_it_only_sweeps(cron: Cron) -> None:
    """A run that lost its job is queued again; nothing is triggered, nothing kept."""
    clock = Clock(cron)
    run_id = cron.trigger().run_id
    cron.redis.delete(f"rq:job:{cron.jobs()[0]}", "rq:queue:all-sites-cron")
    cron.redis.hset(keys.run(run_id), "spare_ms", 0)
    assert clock.look(NOON + 300) == 5
    assert len(cron.jobs()) == 1
    assert clock.runs() == [run_id]
    assert clock.kept() == {}


@pytest.mark.parametrize("queue", ["true", "false"])
def test_what_follows_a_run_is_left_to_who_can_do_it(make_cron: MakeCron, queue: str) -> None:
    """Without a worker that is a web process; a clock puts it off for nobody."""
    cron = make_cron(use_redis_queue=queue)
    cron.redis.zadd(keys.FOLLOW_UP, {"prune": 1})
    cron.redis.expire(keys.FOLLOW_UP, 60)
    Clock(cron).look(NOON)
    assert cron.redis.zscore(keys.FOLLOW_UP, "prune") == 1


def test_what_is_said_of_it(clock: Clock) -> None:
    """The next tick and the last; where no clock was heard of lately what to do. Nothing without a schedule."""
    ((said, remedy),) = seen(clock.world)
    assert said == f"SCHEDULE {EVERY_FIVE} UTC: next tick 2026-06-04 12:05:00 UTC; the last: none; missed: 0"
    assert remedy == ""
    clock.look(NOON + 601)
    ((said, remedy),) = seen(clock.world)
    last = r"2026-06-04 12:10:00 UTC, 1 s late: queued \w+"
    assert re.search(rf"next tick 2026-06-04 12:15:00 UTC; the last: {last}; missed: 1", said)
    clock.at += 90
    ((_, remedy),) = seen(clock.world)
    assert remedy == "No clock is running: start the Procfile's clock line."


def test_nothing_is_said_without_a_schedule(cron: Cron) -> None:
    assert list(seen(Clock(cron).world)) == []
