"""process-queue starts the queued run in the web process, for deployments without a worker (CONTRACT section 4)."""

from typing import Any

import httpx
import pytest

from jobs import keys
from tests.integration.processes import until
from tests.integration.stack import API, Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

EMPTY = "No jobs in queue"
LOCKED = "Lock held — job re-queued for later processing."


def process(web: Stack, **query: Any) -> httpx.Response:
    """Call process-queue."""
    return web.client.post(f"{API}/process-queue", params=query)


def test_nothing_is_queued(web: Stack, sites: DemoNetwork) -> None:
    """200 says so, and starts nothing."""
    answer = process(web)
    assert (answer.status_code, answer.json()) == (200, {"success": True, "message": EMPTY, "count": 0})
    assert answer.headers["cache-control"] == "no-store"
    assert process(web, ga=1).text == f"::notice::{EMPTY}\n"
    assert (sites.stats()["calls"], web.redis.exists(keys.ACTIVE)) == (0, 0)


def test_the_queued_run_walks_here(web: Stack, sites: DemoNetwork) -> None:
    """200 with the run's result and id, though it is within the cooldown; a second call finds nothing."""
    queued = web.trigger(defer=1).json()["run_id"]
    answer = process(web)
    assert answer.status_code == 200
    result = {"success": True, "message": "", "count": 6, "errors": 0, "run_id": queued}
    assert answer.json().items() >= result.items()
    assert answer.headers["location"] == f"{API}/runs/{queued}"
    assert sites.stats()["ran_sites"] == 6
    assert process(web).json()["message"] == EMPTY


def test_in_actions_text(web: Stack, sites: DemoNetwork) -> None:
    """ga=1 gives the line of a sync run."""
    web.trigger(defer=1)
    answer = process(web, ga="yes")
    assert (answer.status_code, answer.text) == (200, "::notice::Running wp-cron on 6 sites\n")


def test_a_bad_boolean(web: Stack, sites: DemoNetwork) -> None:
    """ga=maybe is 400 and leaves the run in the queue; `defer` means nothing here."""
    web.trigger(defer=1)
    assert process(web, ga="maybe").json()["code"] == "rest_invalid_param"
    assert sites.stats()["calls"] == 0
    assert process(web, defer="maybe").status_code == 200


@pytest.mark.parametrize("trouble", ["partial", "source", "no sites"])
def test_anything_less_than_well_is_500(stack: Stack, network: DemoNetwork, trouble: str) -> None:
    """The plugin's rule: 500 on a partial or failed run and where there is no site, the result beside it."""
    path = stack.folder / "sites.csv"
    if trouble == "partial":
        network.sites.by_id[7].behaviour = Behaviour.ERROR500
        expected = {"error_code": "PARTIAL_FAILURE", "errors": 1, "count": 120}
        line = "::warning::Completed with 1 error(s): "
    elif trouble == "source":
        path.unlink()
        expected = {"error_code": "SOURCE_ERROR"}
        line = "::error::"
    else:
        path.write_text("blog_id,url,public,archived,deleted,spam\n")
        expected = {"message": "No public sites found in the network", "count": 0}
        line = "::error::No public sites found in the network\n"
    stack.set(rate_limit_seconds=0)
    stack.web()
    queued = stack.trigger(defer=1).json()["run_id"]
    answer = process(stack)
    assert answer.status_code == 500
    assert answer.json().items() >= {"success": False, "run_id": queued, **expected}.items()
    stack.trigger(defer=1)
    in_text = process(stack, ga=1)
    assert (in_text.status_code, in_text.text.startswith(line)) == (500, True), in_text.text


def test_a_run_is_running(web: Stack, sites: DemoNetwork) -> None:
    """409 with the plugin's words and `retry`, naming the run."""
    for site in sites.sites.all:
        site.latency_ms = 900
    queued = web.trigger(defer=1).json()["run_id"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{web.client.base_url}{API}/process-queue", headers=web.client.headers, timeout=0.2)
    until(lambda: web.run(queued).status == "running")
    answer = process(web)
    assert answer.status_code == 409
    assert answer.json() == {"success": False, "message": LOCKED, "retry": True, "run_id": queued}
    assert answer.headers["location"] == f"{API}/runs/{queued}"
    assert process(web, ga=1).text == f"::warning::{LOCKED}\n"
    assert web.ended(queued).count == 6


def test_while_deactivated(web: Stack, sites: DemoNetwork) -> None:
    """It starts no run, and says why."""
    web.trigger(defer=1)
    web.redis.set(keys.DEACTIVATED, 0)
    answer = process(web)
    assert (answer.status_code, answer.json()["error"]) == (503, "deactivated")
    assert sites.stats()["calls"] == 0


@pytest.mark.parametrize("how", ["sync", "process-queue"])
def test_past_the_deadline(stack: Stack, network: DemoNetwork, how: str) -> None:
    """After SYNC_DEADLINE a waiting caller gets 202 and the run goes on to its end."""
    for site in network.sites.all:
        site.latency_ms = 150
    stack.set(sync_deadline=0.1, rate_limit_seconds=0)
    stack.web()

    def call(**query: Any) -> httpx.Response:
        if how == "sync":
            return stack.trigger(**query)
        stack.trigger(defer=1)
        return process(stack, **query)

    answer = call()
    assert answer.status_code == 202
    body = answer.json()
    del body["timestamp"]
    run_id = body.pop("run_id")
    assert answer.headers["location"] == f"{API}/runs/{run_id}"
    assert body == {"success": True, "status": "running", "message": "Still running; see Location", "mode": how}
    run = stack.ended(run_id)
    assert (run.status, run.count, network.stats()["ran_sites"]) == ("succeeded", 120, 120)
    in_text = call(ga=1)
    run_id = in_text.headers["location"].rpartition("/")[2]
    assert (in_text.status_code, in_text.text) == (202, f"::notice::Still running wp-cron; run {run_id}\n")
    stack.ended(run_id)
