"""A run outlives the web process that walks it: deferred without a queue, kill -9, SIGTERM (CONTRACT section 2)."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs import keys
from tests.integration.processes import until
from tests.integration.stack import API, Stack
from wordpress.demo_network import DemoNetwork

QUEUED = "Cron job queued for background processing"


@pytest.fixture
def slow(network: DemoNetwork) -> DemoNetwork:
    """The 120 sites, each taking 0.15 s."""
    for site in network.sites.all:
        site.latency_ms = 150
    return network


def test_deferred_without_a_queue(stack: Stack, slow: DemoNetwork) -> None:
    """USE_REDIS_QUEUE=false: 202 `deferred` at once, then the work goes on in this process; RQ has nothing of it."""
    stack.set(use_redis_queue="false", rate_limit_seconds=0)
    stack.web()
    answer = stack.trigger(defer=1)
    assert answer.status_code == 202
    body = answer.json()
    run_id = body.pop("run_id")
    del body["timestamp"]
    assert body == {"success": True, "status": "queued", "message": QUEUED, "mode": "deferred"}
    assert answer.headers["location"] == f"{API}/runs/{run_id}"
    assert slow.sites.calls < 120, "nobody waited for the walk"
    until(lambda: stack.run(run_id).status == "running")
    assert stack.trigger(defer=1).status_code == 409
    run = stack.ended(run_id)
    assert (run.status, run.mode, run.count) == ("succeeded", "deferred", 120)
    assert (slow.stats()["ran_sites"], slow.sites.calls) == (120, 120)
    assert "taken up again" not in stack.log("web"), "it did not wait for the sweep"
    in_text = stack.trigger(defer=1, ga=1)
    assert (in_text.status_code, in_text.text) == (202, f"::notice::{QUEUED}\n")
    stack.ended(in_text.headers["location"].rpartition("/")[2])
    assert not list(stack.redis.scan_iter("rq:*"))
    assert "warning" not in stack.client.get("/readyz").json(), "no worker is missed"


def kill_midway(stack: Stack) -> str:
    """Start a deferred walk, kill -9 its process in the middle, start another process; the run's id."""
    stack.set(use_redis_queue="false", lock_timeout=2, concurrency=16)
    first = stack.web()
    run_id = str(stack.trigger(defer=1).json()["run_id"])
    until(lambda: stack.run(run_id).count >= 20)
    os.kill(first.pid, signal.SIGKILL)
    first.wait(5)
    assert not stack.run(run_id).final
    stack.web()
    return run_id


def test_a_killed_web_process_is_followed_by_the_next(stack: Stack, slow: DemoNetwork) -> None:
    """After kill -9 in a deferred walk, the sweep of the restarted process resumes it; no site is left out."""
    run_id = kill_midway(stack)
    run = stack.ended(run_id)
    assert (run.status, run.count) == ("succeeded", 120)
    assert slow.stats()["ran_sites"] == 120
    assert slow.sites.calls < 240, "what was done before is not done again"


def test_a_trigger_resumes_a_run_that_nobody_walks(stack: Stack, slow: DemoNetwork) -> None:
    """As soon as the dead walker's lease is over, a call is told 409 and has the run taken up, before any sweep."""
    run_id = kill_midway(stack)
    until(lambda: not stack.redis.exists(keys.LOCK))
    answer = stack.trigger()
    assert (answer.status_code, answer.json()["run_id"]) == (409, run_id)
    until(lambda: bool(stack.redis.exists(keys.LOCK)), 2)
    assert "taken up again" not in stack.log("web"), "what the sweep would have said"
    assert stack.ended(run_id).count == 120


@pytest.mark.parametrize("how", ["run", "process-queue"])
def test_sigterm_leaves_the_run_to_a_worker(stack: Stack, slow: DemoNetwork, how: str) -> None:
    """A web process that walks checkpoints, answers its caller 202 and exits in time; a worker ends the run."""
    stack.set(concurrency=16)
    web = stack.web()
    if how == "process-queue":
        stack.trigger(defer=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stack.client.post, f"{API}/{how}")
        until(lambda: slow.sites.calls >= 40)
        web.terminate()
        told = time.monotonic()
        answer = waiting.result()
        assert web.wait(15) in (0, -signal.SIGTERM)
        assert time.monotonic() - told < 10
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    run_id = answer.json()["run_id"]
    assert answer.headers["location"] == f"{API}/runs/{run_id}"
    left = stack.run(run_id)
    assert (left.status, left.crashes) == ("running", 0)
    assert 0 < left.count == slow.sites.calls < 120, "every answer that came is kept"
    assert stack.redis.llen("rq:queue:all-sites-cron") == 1
    stack.worker()
    run = stack.ended(run_id)
    assert (run.status, run.count, run.crashes) == ("succeeded", 120, 0)
    assert (slow.stats()["ran_sites"], slow.sites.calls) == (120, 120), "none is left out, none called twice"


def test_sigterm_in_a_deferred_walk_leaves_it_to_the_next_process(stack: Stack, slow: DemoNetwork) -> None:
    """Without a queue the next web process goes on where the first was stopped."""
    stack.set(use_redis_queue="false", concurrency=16)
    web = stack.web()
    run_id = stack.trigger(defer=1).json()["run_id"]
    until(lambda: slow.sites.calls >= 40)
    web.terminate()
    web.wait(10)
    assert stack.run(run_id).count == slow.sites.calls < 120
    stack.web()
    assert stack.ended(run_id).count == 120
    assert (slow.stats()["ran_sites"], slow.sites.calls) == (120, 120)


def test_sigterm_with_hung_sites_is_in_time(stack: Stack, network: DemoNetwork) -> None:
    """Sites that never answer do not hold the process up: it waits 5 s for them, answers and exits."""
    for site in network.sites.all:
        site.latency_ms = 60_000
    stack.set(request_timeout=60)
    web = stack.web()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stack.trigger)
        until(lambda: network.sites.calls >= 8)
        web.terminate()
        told = time.monotonic()
        assert waiting.result().status_code == 202
        assert web.wait(15) in (0, -signal.SIGTERM)
        assert time.monotonic() - told < 10
    assert stack.redis.exists(keys.ACTIVE), "left to whoever comes next"


def test_an_idle_web_process_ends_at_once(stack: Stack, network: DemoNetwork) -> None:
    """SIGTERM without a walk needs no patience."""
    web = stack.web()
    told = time.monotonic()
    web.terminate()
    web.wait(10)
    assert time.monotonic() - told < 5
