"""Times of `deactivate --until`, what counts as the plugin's job, and what uninstall waits for."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import fakeredis
import pytest

from jobs import keys, lifecycle, scripts
from jobs.admission import fresh_job
from jobs.errors import Deactivated, SettingsError
from jobs.world import build
from tests.unit.fakes import Cron, pairs, settings

MakeCron = Callable[..., Cron]
DAY = 86_400_000


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's own time zone is not UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2090-01-31T08:00:00Z", "2090-01-31 08:00:00"),
        ("2090-01-31T08:00:00+02:00", "2090-01-31 06:00:00"),
        ("2090-01-31T08:00", "2090-01-31 08:00:00"),
        ("2090-01-31 08:00:01", "2090-01-31 08:00:01"),
        ("2090-01-31", "2090-01-31 00:00:00"),
    ],
)
@pytest.mark.usefixtures("tokyo")
def test_until_takes_a_time_and_utc_where_it_names_no_zone(cron: Cron, text: str, expected: str) -> None:
    moment = lifecycle.deactivate(cron.redis, text)
    assert f"{moment:%Y-%m-%d %H:%M:%S}" == expected
    stored = int(cron.redis.get(keys.DEACTIVATED)) / 1000
    assert datetime.fromtimestamp(stored, UTC) == moment
    with pytest.raises(Deactivated, match=f"until {expected} UTC"):
        cron.trigger()


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("90s", 90_000), ("30m", 1_800_000), ("2h", DAY / 12), ("7d", DAY * 7)]
)
def test_until_takes_a_duration_from_now_by_the_redis_clock(cron: Cron, text: str, milliseconds: float) -> None:
    """And the key goes by itself when it is over."""
    lifecycle.deactivate(cron.redis, text)
    assert int(cron.redis.get(keys.DEACTIVATED)) - cron.now() == pytest.approx(milliseconds, abs=30_000)
    assert cron.redis.pttl(keys.DEACTIVATED) == pytest.approx(milliseconds, abs=30_000)


NO_TIMES = ["", " ", "soon", "0", "0s", "0h", "-2h", "2", "2x", "2H", "1.5h", "h", "२h", "2020-01-01", "2090-13-01"]
NO_TIMES += ["9" * 20 + "d", "9" * 5000 + "s", "9999999d", "9999-12-31T23:59:59-12:00", "2090-01-31T08:00:00Zulu"]


@pytest.mark.parametrize("text", NO_TIMES)
def test_until_refuses_what_is_no_time_to_come_and_changes_nothing(cron: Cron, text: str) -> None:
    """0 would mean for good; a time that has passed would mean nothing."""
    with pytest.raises(SettingsError, match=r"--until=.*must be a time to come.*or a duration"):
        lifecycle.deactivate(cron.redis, text)
    assert not cron.redis.exists(keys.DEACTIVATED)


def test_for_good_takes_the_place_of_a_time_and_has_no_end(cron: Cron) -> None:
    lifecycle.deactivate(cron.redis, "2h")
    assert lifecycle.deactivate(cron.redis) is None
    assert (cron.redis.get(keys.DEACTIVATED), cron.redis.ttl(keys.DEACTIVATED)) == (b"0", -1)
    lifecycle.activate(cron.redis)
    assert cron.trigger().what == "queued"


GOOD = {"timestamp": 1_750_000_000, "queued_at": 1_750_000_000, "retries": 0}


@pytest.mark.parametrize("job", [GOOD, {**GOOD, "retries": 9, "more": None}, {"timestamp": 1, "queued_at": 2}])
def test_the_plugins_jobs_are_known_also_those_of_its_version_1_5(job: object) -> None:
    assert lifecycle._is_job(json.dumps(job).encode())


NO_JOBS = [b"", b"null", b"3", b"[]", b'"x"', b"{}", b"\xff\xfe\x00", b"{", b"[" * 100_000, b"9" * 5000, b"a:1:{i:0;}"]
NO_JOBS += [b'{"queued_at": 1, "retries": 0}', json.dumps([GOOD]).encode()]
ODD: list[object] = [None, "1", 1.5, True, [], {"a": 1}]
NO_JOBS += [json.dumps({**GOOD, name: value}).encode() for name in GOOD for value in ODD]


@pytest.mark.parametrize("entry", NO_JOBS)
def test_anything_else_is_no_job(entry: bytes) -> None:
    assert not lifecycle._is_job(entry)


def waits_for(cron: Cron) -> str:
    script = cron.redis.register_script(scripts.text("retire", cron.settings))
    return str(script(args=["{}"]).decode())


def test_uninstall_waits_for_nothing_where_there_is_no_run(cron: Cron) -> None:
    assert waits_for(cron) == ""


def test_uninstall_cancels_a_run_that_nobody_has_started(cron: Cron) -> None:
    """At once, a worker or not: its job finds it ended."""
    run_id = cron.trigger().run_id
    (job,) = cron.jobs()
    cron.scripts.sweep(worker="one", **fresh_job())
    assert waits_for(cron) == ""
    assert (cron.run(run_id).status, cron.run(run_id).reason) == ("cancelled", "uninstalled")
    assert cron.start(run_id, job) == "ended"
    assert not cron.redis.exists(keys.ACTIVE, keys.LOCK)


def test_uninstall_waits_while_a_run_is_walked_and_says_how_far_it_is(cron: Cron) -> None:
    run_id = cron.running(3, 3)
    assert waits_for(cron) == f"run {run_id}: 0 of 2 batches are done"
    (claim,) = cron.step(run_id, "walker", want=1).claimed
    cron.step(run_id, "walker", changed=[{"p": claim.page, "t": claim.token, "o": "ddd"}])
    assert waits_for(cron) == f"run {run_id}: 1 of 2 batches are done"
    assert cron.run(run_id).status == "running"


@pytest.mark.parametrize("use_queue", [True, False])
def test_uninstall_gives_the_others_time_to_take_up_a_run_whose_walker_died(
    make_cron: MakeCron, use_queue: bool
) -> None:
    """With a queue while a worker is heard; without one a web process sweeps every few seconds. Then it cancels."""
    cron = make_cron(use_redis_queue=use_queue)
    run_id = cron.trigger("here").run_id
    (walker,) = (name.decode() for name in cron.redis.zrange(keys.walkers(run_id), 0, -1))
    cron.start(run_id, walker)
    cron.list_pages(run_id, walker, [pairs(3)])
    if use_queue:
        cron.scripts.sweep(worker="one", **fresh_job())
    cron.redis.zadd(keys.walkers(run_id), {walker: cron.now() - 60_000 * use_queue})
    cron.redis.delete(keys.LOCK)  # as if its time had run out
    assert run_id in waits_for(cron)
    cron.redis.zadd(keys.walkers(run_id), {walker: cron.now() - 60_000})
    cron.redis.delete(keys.WORKERS)
    cron.redis.set(keys.LOCK, run_id, px=60_000)
    assert run_id in waits_for(cron), "its lock is still live"
    cron.redis.delete(keys.LOCK)
    assert waits_for(cron) == ""
    assert cron.run(run_id).status == "cancelled"


def test_uninstall_waits_for_a_live_lock_whosever_it_is(cron: Cron) -> None:
    cron.redis.set(keys.LOCK, "0123456789abcdef", px=60_000)
    cron.trigger()
    assert waits_for(cron) == "the lock to expire"
    assert cron.redis.get(keys.LOCK) == b"0123456789abcdef"


class LockedLate(fakeredis.FakeRedis):
    """A Redis in which a run takes the lock when uninstall has nothing more to wait for."""

    def pubsub_numsub(self, *args: Any, **kwargs: Any) -> Any:
        self.set(keys.LOCK, "0123456789abcdef", px=60_000)
        return super().pubsub_numsub(*args, **kwargs)


def test_uninstall_leaves_a_lock_that_was_taken_meanwhile() -> None:
    """As by an `activate` from elsewhere and a trigger: every other key goes."""
    redis = LockedLate()
    redis.mset({keys.CURSOR: "1", keys.run("x"): "1"})
    lifecycle.uninstall(replace(build({"REDIS_URL": "redis://localhost"}), redis=redis), print)
    assert redis.keys() == [keys.LOCK.encode()]


class SweptLate(fakeredis.FakeRedis):
    """A Redis that a web process still sweeps when uninstall has removed RQ's keys."""

    def srem(self, *args: Any, **kwargs: Any) -> Any:
        if args[0] == "rq:workers":
            scripts.Scripts(self, settings()).sweep(**fresh_job())
        return super().srem(*args, **kwargs)


def test_uninstall_leaves_no_job_of_a_follow_up() -> None:
    """A worker that was killed seems to listen; what follows a run is forgotten before RQ's keys are removed."""
    redis = SweptLate()
    redis.zadd(keys.FOLLOW_UP, {"prune": 1})
    redis.zadd(keys.WORKERS, {"killed": time.time() * 1000})
    lifecycle.uninstall(replace(build({"REDIS_URL": "redis://localhost"}), redis=redis), print)
    assert redis.keys() == []
