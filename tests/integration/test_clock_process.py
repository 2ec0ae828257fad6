"""The Procfile's clock as real processes. A tick that is late comes at once, so that no test waits for a minute."""

import signal
import subprocess
from typing import cast

import pytest
from redis import Redis

from jobs import keys
from service.embedded import EmbeddedValkey
from tests.integration.processes import until
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork

MINUTELY = "* * * * *"


def behind(redis: Redis, seconds: int) -> None:
    """As if the last look of a clock had been so long ago."""
    redis.hset(keys.CLOCK, "time", redis.time()[0] - seconds)
    redis.expire(keys.CLOCK, 600)


def kept(stack: Stack, field: str) -> str:
    return cast(bytes, stack.redis.hget(keys.CLOCK, field) or b"").decode()


def all_runs(stack: Stack) -> list[str]:
    return [run_id.decode() for run_id in cast(list[bytes], stack.redis.zrange(keys.RUNS, 0, -1))]


def ticking(stack: Stack) -> subprocess.Popen[bytes]:
    """A clock that is a few ticks behind."""
    stack.set(schedule=MINUTELY)
    behind(stack.redis, 200)
    return stack.start("clock")


def test_a_tick_is_walked_by_a_worker(stack: Stack, few: DemoNetwork) -> None:
    """A run of mode `schedule`, as every deferred one; `status` and `check` tell of it."""
    stack.worker()
    ticking(stack)
    until(lambda: bool(all_runs(stack)), 20)
    (run_id,) = all_runs(stack)
    run = stack.ended(run_id)
    assert (run.status, run.mode, run.by, run.count) == ("succeeded", "schedule", "clock", 12)
    assert few.stats()["ran_sites"] == 12
    assert int(kept(stack, "missed")) in (2, 3)
    for command in ("status", "check"):
        said = stack.command(command).stdout
        assert f"SCHEDULE {MINUTELY} UTC: next tick 2" in said
        assert f"late: queued {run_id}; missed: " in said
        assert "No clock is running" not in said


def test_without_the_queue_the_web_process_walks_it(stack: Stack, few: DemoNetwork) -> None:
    """Its sweep finds the run that nobody walks."""
    stack.set(use_redis_queue="false")
    stack.web()
    ticking(stack)
    until(lambda: bool(all_runs(stack)), 20)
    assert stack.ended(all_runs(stack)[0]).status == "succeeded"
    assert few.stats()["ran_sites"] == 12


def test_of_several_clocks_one_does_a_tick(stack: Stack, few: DemoNetwork) -> None:
    """The others see that it is done: one run for each, and nobody joins one."""
    stack.set(schedule=MINUTELY)
    for name in ("one", "two", "three"):
        stack.start(name, command="python -m service clock")
    until(lambda: bool(kept(stack, "time")), 20)
    for ticks in range(1, 3):
        stack.redis.delete(keys.ACTIVE)
        behind(stack.redis, 90)
        until(lambda: stack.redis.time()[0] - int(kept(stack, "time")) < 10, 20)
        assert len(all_runs(stack)) == ticks
        assert ": queued" in kept(stack, "last")


def test_without_a_schedule_it_stays_there_and_sweeps(stack: Stack, few: DemoNetwork) -> None:
    """No crash loop: it takes up what lost its job. SIGTERM ends it at once."""
    clock = stack.start("clock")
    assert stack.command("run", "--defer").returncode == 0
    (run_id,) = all_runs(stack)
    stack.redis.delete("rq:queue:all-sites-cron")
    stack.redis.hset(keys.run(run_id), "spare_ms", 0)
    until(lambda: stack.redis.llen("rq:queue:all-sites-cron") == 1, 20)
    assert clock.poll() is None
    assert not stack.redis.exists(keys.CLOCK)
    clock.send_signal(signal.SIGTERM)
    assert clock.wait(3) == -signal.SIGTERM


def test_it_outlives_redis(stack: Stack, few: DemoNetwork, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What came meanwhile is made up for afterwards."""
    stack.set(schedule=MINUTELY)
    folder = tmp_path_factory.mktemp("clock")
    with EmbeddedValkey.start(folder) as server:
        stack.environ["REDIS_URL"] = server.url
        clock = stack.start("clock")
        with Redis.from_url(server.url) as redis:
            until(lambda: redis.exists(keys.CLOCK) == 1, 20)
            behind(redis, 200)
    until(lambda: "Redis cannot be asked" in stack.log("clock"), 20)
    with EmbeddedValkey.start(folder) as server, Redis.from_url(server.url) as redis:
        until(lambda: redis.zcard(keys.RUNS) == 1, 20)
        assert clock.poll() is None
        clock.kill()
        clock.wait()


def test_wrong_settings_end_it_with_what_is_allowed(stack: Stack) -> None:
    """Exit code 2, as with every command."""
    stack.set(schedule="sometimes", timezone="Mars")
    process = stack.start("clock")
    assert process.wait(20) == 2
    assert "ALL_SITES_CRON_SCHEDULE='sometimes': must be the five fields of a crontab line" in stack.log("clock")
    assert "ALL_SITES_CRON_TIMEZONE='Mars': must be the name of a time zone" in stack.log("clock")
