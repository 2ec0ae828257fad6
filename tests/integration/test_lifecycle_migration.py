"""`check` takes over, once, what the plugin left in Redis (CONTRACT section 7)."""

import json

from jobs import keys
from tests.integration.horses import begin, repeats, walking
from tests.integration.rq_neighbour import contents
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork

READING = ["+@read", "+@connection", "+info", "+time"]
MALFORMED = [b"not json", b'{"queued_at": 1}', b"\xff\x1b[31mred", b"not json"]


def left(stack: Stack, number: int = 3) -> None:
    """What the plugin had queued: so many jobs."""
    for n in range(number):
        stack.redis.rpush(
            keys.PLUGIN_JOBS, json.dumps({"timestamp": 1_750_000_000 + n // 2, "queued_at": 2, "retries": n})
        )


def test_the_plugins_jobs_become_one_run_and_a_second_check_does_nothing(stack: Stack, network: DemoNetwork) -> None:
    """By `migration`, cooldown or not; deferred, so that the workers walk it and the deployment goes on."""
    stack.web()
    assert stack.trigger().status_code == 200  # the cooldown runs
    left(stack)
    done = stack.command("check")
    assert done.returncode == 0
    assert "3 jobs that the plugin queued are one run now, " in done.stdout
    run_id = done.stdout.partition("one run now, ")[2].split()[0]
    assert (stack.run(run_id).status, stack.run(run_id).by) == ("queued", "migration")
    assert not stack.redis.exists(keys.PLUGIN_JOBS)
    before = contents(stack.redis)
    assert "plugin" not in stack.command("check").stdout
    assert contents(stack.redis) == before
    stack.worker()
    assert stack.ended(run_id).status == "succeeded"
    assert {site.calls for site in network.sites.all} == {2}


def test_what_is_no_job_is_reported_and_kept_aside_for_a_while(stack: Stack, network: DemoNetwork) -> None:
    """Each entry as it was; printed so that it cannot change the terminal."""
    stack.redis.rpush(keys.PLUGIN_JOBS, *MALFORMED)
    left(stack, 1)
    done = stack.command("check")
    assert done.returncode == 0
    assert "4 entries of the plugin's queue are no jobs, the first: b'not json'" in done.stdout
    assert f"kept in {keys.MALFORMED} for 30 days" in done.stdout
    assert "1 jobs that the plugin queued are one run now" in done.stdout
    assert "\x1b" not in done.stdout
    assert stack.redis.lrange(keys.MALFORMED, 0, -1) == MALFORMED
    assert 29 * 86400 < stack.redis.ttl(keys.MALFORMED) <= 30 * 86400
    assert not stack.redis.exists(keys.PLUGIN_JOBS)
    assert "plugin" not in stack.command("check").stdout


def test_with_nothing_but_malformed_entries_no_run_is_made(stack: Stack, network: DemoNetwork) -> None:
    stack.redis.rpush(keys.PLUGIN_JOBS, "[]")
    assert stack.command("check").returncode == 0
    assert list(contents(stack.redis)) == [keys.MALFORMED.encode()]


def test_while_a_run_is_walked_the_jobs_wait_for_the_next_check(stack: Stack) -> None:
    """That run may have passed the sites they were meant for."""
    with walking(stack) as (network, run_id):
        left(stack)
        done = stack.command("check")
        assert done.returncode == 0
        assert "3 jobs that the plugin queued wait: Another cron process is currently running" in done.stdout
        assert "The next `check` takes them over" in done.stdout
        assert stack.redis.llen(keys.PLUGIN_JOBS) == 3
        assert stack.ended(run_id).status == "succeeded"
        assert repeats(network) == 0
        assert "are one run now" in stack.command("check").stdout
        assert not stack.redis.exists(keys.PLUGIN_JOBS)


def test_a_run_that_is_queued_is_joined(stack: Stack, network: DemoNetwork) -> None:
    stack.web()
    run_id = begin(stack)
    left(stack)
    assert f"are one run now, {run_id}" in stack.command("check").stdout
    assert stack.redis.zcard(keys.RUNS) == 1
    assert not stack.redis.exists(keys.PLUGIN_JOBS)


def test_while_deactivated_they_wait(stack: Stack, network: DemoNetwork) -> None:
    stack.command("deactivate", "--until", "2h")
    left(stack)
    assert "wait: All Sites Cron is deactivated until" in stack.command("check").stdout
    assert stack.redis.llen(keys.PLUGIN_JOBS) == 3
    stack.command("activate")
    assert "are one run now" in stack.command("check").stdout


def test_two_checks_at_the_same_time_make_one_run(stack: Stack, network: DemoNetwork) -> None:
    """As two machines that are deployed together."""
    left(stack, 50)
    both = [stack.start(f"check{n}", command="python -m service check") for n in range(2)]
    assert [process.wait(20) for process in both] == [0, 0]
    assert stack.redis.zcard(keys.RUNS) == 1
    assert not stack.redis.exists(keys.PLUGIN_JOBS)


def test_without_a_queue_a_web_process_walks_it(stack: Stack, network: DemoNetwork) -> None:
    stack.set(use_redis_queue=False)
    left(stack)
    run_id = stack.command("check").stdout.partition("one run now, ")[2].split()[0]
    assert stack.redis.keys("rq:*") == []
    stack.web()
    assert stack.ended(run_id).status == "succeeded"
    assert network.stats()["ran_sites"] == 120


def test_the_keys_of_the_old_name_are_deleted_and_no_other(stack: Stack, network: DemoNetwork) -> None:
    for key in ("dss_cron", "xdss_cron:lock", "dss_cronx:lock", "theirs"):
        stack.redis.set(key, 1)
    stack.web()
    assert stack.trigger().status_code == 200
    before = contents(stack.redis)
    for n in range(2000):
        stack.redis.set(f"dss_cron:{n}", 1)
    assert "2000 keys of the plugin's old name (dss_cron:…) were deleted" in stack.command("check").stdout
    assert contents(stack.redis) == before


def test_the_release_step_is_this_check(stack: Stack, network: DemoNetwork) -> None:
    """What a deployment runs, by the Procfile's own line."""
    left(stack)
    assert stack.start("release").wait(20) == 0
    assert "are one run now" in stack.log("release")


def test_under_a_run_the_release_step_only_reads(stack: Stack) -> None:
    """With nothing of the plugin's left: a user that may not write is enough, so that a deployment disturbs no walk."""
    with walking(stack) as (_, run_id):
        stack.redis.acl_setuser("reader", enabled=True, nopass=True, keys="*", commands=READING)
        stack.environ["REDIS_URL"] = stack.redis_url.replace("unix://", "unix://reader:any@")
        try:
            assert stack.start("release").wait(20) == 0, stack.log("release")
        finally:
            stack.redis.acl_deluser("reader")
        assert "1 workers listen" in stack.log("release")
        assert not stack.run(run_id).final
        assert stack.ended(run_id).status == "succeeded"
