"""`POST …/runs/{id}/cancel`: a run stops after the requests in flight, whoever walks it (CONTRACT section 1)."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from jobs import keys, rq_names
from tests.integration.horses import begin, calls, horse, kill, late_sites, repeats, running, until_called
from tests.integration.processes import until
from tests.integration.stack import API, Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

SITES = 900


def cancel(stack: Stack, run_id: str, **query: object) -> httpx.Response:
    return stack.client.post(f"{API}/runs/{run_id}/cancel", params={name: str(value) for name, value in query.items()})


@pytest.fixture
def late(stack: Stack) -> Iterator[DemoNetwork]:
    """900 sites that take 50 ms, 5 of them in flight a walker; leases of 2 s."""
    with running(late_sites(SITES, latency_ms=50)) as made:
        stack.use(made)
        stack.set(concurrency=5, batch_size=40, lock_timeout=2)
        yield made


def test_a_queued_run_is_cancelled_at_once(web: Stack, sites: DemoNetwork) -> None:
    """200 with the run; its job is gone, no cooldown is left, and a worker would find nothing."""
    run_id = web.trigger(defer=1).json()["run_id"]
    answer = cancel(web, run_id)
    assert (answer.status_code, answer.headers["location"]) == (200, f"{API}/runs/{run_id}")
    assert answer.json().items() >= {"run_id": run_id, "status": "cancelled", "reason": "cancelled"}.items()
    assert answer.json() == web.client.get(answer.headers["location"]).json()
    assert not web.redis.exists(rq_names.queue("all-sites-cron"), keys.COOLDOWN, keys.ACTIVE)
    assert web.client.post(f"{API}/process-queue").json()["message"] == "No jobs in queue"
    assert 'runs_total{status="cancelled"} 1.0' in web.client.get("/metrics").text


def test_a_run_that_has_ended_cannot_be_cancelled(web: Stack, sites: DemoNetwork) -> None:
    """409 in the REST API's words; with ga=1 an error line."""
    run_id = web.trigger().json()["run_id"]
    answer = cancel(web, run_id)
    message = f"Run {run_id} has ended as succeeded."
    assert (answer.status_code, answer.json()["message"]) == (409, message)
    assert (answer.json()["code"], answer.json()["data"]) == ("rest_run_ended", {"status": 409})
    assert cancel(web, run_id, ga=1).text == f"::error::{message}\n"


@pytest.mark.parametrize("run_id", ["fedcba9876543210", "nonsense", "0123456789abcdef:failed"])
def test_an_unknown_run_cannot_be_cancelled(web: Stack, run_id: str) -> None:
    """404, and nothing is written."""
    answer = cancel(web, run_id)
    assert (answer.status_code, answer.json()["code"]) == (404, "rest_run_not_found")
    assert not list(web.redis.scan_iter("*"))


def test_whoever_waits_for_the_run_is_told(stack: Stack, late: DemoNetwork) -> None:
    """A sync caller gets CANCELLED with what was done, though a site failed before; the walk is in the web process."""
    late.sites.by_id[1].behaviour = Behaviour.ERROR500
    stack.web()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stack.trigger)
        until_called(late, 20)
        run_id = stack.client.get(f"{API}/runs").json()["runs"][0]["run_id"]
        answer = cancel(stack, run_id)
        assert (answer.status_code, answer.json()["status"]) == (202, "running")
        assert answer.headers["location"] == f"{API}/runs/{run_id}"
        told = waiting.result()
    body = told.json()
    assert (told.status_code, body["success"], body["error_code"]) == (200, False, "CANCELLED")
    assert body["message"] == "The run was cancelled by default."
    assert body["count"] == body["dispatched"] + 1 == calls(late) < SITES
    assert cancel(stack, run_id).status_code == 409


def test_every_walker_stops_and_what_was_in_flight_is_stored(stack: Stack, late: DemoNetwork) -> None:
    """Three workers: no site is triggered whose outcome is not kept, none after the end; the next run has them all."""
    stack.set(rate_limit_seconds=0)
    stack.web()
    for _ in range(3):
        stack.worker()
    run_id = begin(stack)
    until(lambda: late.in_flight.most_total > 10, 20)
    assert cancel(stack, run_id).status_code == 202
    run = stack.ended(run_id, 5)
    called = calls(late)
    assert (run.status, run.message) == ("cancelled", "The run was cancelled by default.")
    assert run.count == run.total("dispatched") == called < SITES
    assert run.crashes == 0
    assert not stack.redis.exists(keys.LOCK, keys.ACTIVE)
    assert stack.ended(begin(stack)).count == SITES
    assert (calls(late), repeats(late)) == (called + SITES, called)


def test_a_walker_that_was_killed_does_not_keep_it(stack: Stack, late: DemoNetwork) -> None:
    """The others, or the sweep, end the run as soon as its lease is over."""
    stack.web()
    stack.worker()
    run_id = begin(stack)
    until_called(late, 20)
    walking = horse(stack.processes[-1])
    os.kill(walking, signal.SIGSTOP)
    assert cancel(stack, run_id).status_code == 202
    kill(stack.processes[-1].pid, walking)
    assert not stack.run(run_id).final
    assert stack.ended(run_id, 15).status == "cancelled"
    assert stack.trigger(defer=1).status_code == 429, "it sent something"
