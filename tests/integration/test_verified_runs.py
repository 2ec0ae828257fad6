"""Runs over a network that tells its schedules: due-only, verified by real workers, on the network's own count."""

import json
import subprocess
import sys
from typing import Any

import pytest

from jobs import keys
from tests.integration.processes import until
from tests.integration.stack import API, ROOT, Stack
from tests.integration.test_action import at
from wordpress.demo_network import DemoNetwork, running
from wordpress.demo_sites import Behaviour

RUN = [sys.executable, "-m", "service", "run"]


def use_schedules(stack: Stack, network: DemoNetwork) -> None:
    """Take the sites from the feed that tells due times."""
    stack.set(sites=f"{network.origin}/_demo/feed?dated=1")


def run(stack: Stack) -> str:
    """A deferred run that has ended; its id."""
    run_id = str(stack.client.get(f"{API}/run", params={"defer": "1"}).json()["run_id"])
    until(lambda: stack.run(run_id).final, 60)
    return run_id


def view(stack: Stack, run_id: str) -> dict[str, Any]:
    return dict(stack.client.get(f"{API}/runs/{run_id}").json())


def verification(stack: Stack, run_id: str, *, seconds: float = 60) -> dict[str, Any]:
    """The verification of a run, once it is done."""
    until(lambda: view(stack, run_id)["verification"]["status"] == "done", seconds)
    return dict(view(stack, run_id)["verification"])


@pytest.mark.timeout(180)
def test_ten_thousand_sites_of_which_a_hundred_are_due_cost_a_hundred_requests(stack: Stack) -> None:
    """Counted by the network; each of them ran, and was seen to have."""
    with running(DemoNetwork.plain(10_000, addresses=20)) as network:
        for site in network.sites.all:
            site.due = site.armed = int(site.id % 100 == 7)
        use_schedules(stack, network)
        stack.set(origin_concurrency=50)
        stack.web()
        stack.start("worker")
        run_id = run(stack)
        counts = network.stats()
        assert (counts["calls"], counts["events_run"], counts["wrong_calls"]) == (100, 100, 0)
        seen = view(stack, run_id)
        assert (seen["status"], seen["count"], seen["dispatched"], seen["skipped"]) == ("succeeded", 10_000, 100, 9_900)
        assert seen["outcomes"] == {"dispatched": 100, "not_due": 9_900}
        done = {"status": "done", "verified": 100, "working": 0, "stuck": 0, "unknown": 0}
        assert verification(stack, run_id) == done
        assert stack.client.get(f"{API}/sites/107").json()["last_verified_at"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("queue", ["true", "false"])
def test_a_site_that_answers_and_runs_nothing_is_stuck(stack: Stack, queue: str) -> None:
    """As behind a cache: 200, the events stay due. Also where the web process alone does everything."""
    with running(DemoNetwork.plain(6, addresses=2)) as network:
        broken = network.sites.by_id[3]
        broken.locked_at = network.clock() + 3600  # nothing can run here; a lock as far ahead counts as none
        use_schedules(stack, network)
        stack.set(verify_grace=1, use_redis_queue=queue)
        stack.web()
        if queue == "true":
            stack.start("worker")
        run_id = run(stack)
        done = verification(stack, run_id)
        assert (done["verified"], done["stuck"]) == (5, 1)
        assert broken.calls == 2
        listed = stack.client.get(f"{API}/sites", params={"state": "stuck"}).json()["sites"]
        assert [(site["site_id"], site["state"], site["failing"]["reason"]) for site in listed] == [
            ("3", "stuck", "stuck")
        ]
        assert not stack.redis.exists(keys.unverified(run_id))


@pytest.mark.timeout(120)
def test_a_site_that_fails_is_not_verified(stack: Stack) -> None:
    """Its failure says enough."""
    with running(DemoNetwork.plain(6, addresses=2)) as network:
        network.sites.by_id[3].behaviour = Behaviour.NOT_FOUND
        use_schedules(stack, network)
        stack.web()
        stack.start("worker")
        run_id = run(stack)
        assert view(stack, run_id)["status"] == "partial"
        assert verification(stack, run_id)["verified"] == 5


@pytest.mark.timeout(120)
@pytest.mark.parametrize("options", [[], ["--wait"]], ids=str)
def test_the_command_line_alone_verifies_what_the_run_before_it_triggered(stack: Stack, options: list[str]) -> None:
    """A crontab with `run` and neither web process nor worker."""
    command = [*RUN, *options]
    with running(DemoNetwork.plain(6, addresses=2)) as network:
        use_schedules(stack, network)
        stack.set(rate_limit_seconds=0)
        first = json.loads(subprocess.run(command, cwd=ROOT, env=stack.environ, capture_output=True, check=True).stdout)
        until(lambda: (stack.redis.zscore(keys.FOLLOW_UP, first["run_id"]) or 0) < stack.redis.time()[0] * 1000)
        subprocess.run(command, cwd=ROOT, env=stack.environ, capture_output=True, check=True)
        assert stack.run(first["run_id"]).verified["verified"] == 6


@pytest.mark.timeout(120)
def test_the_action_waits_for_the_verification_and_tells_of_stuck_sites(stack: Stack) -> None:
    """`verify: true`: a warning, and an error where the step is to fail on what is not well."""
    with running(DemoNetwork.plain(6, addresses=2)) as network:
        network.sites.by_id[3].locked_at = network.clock() + 3600
        use_schedules(stack, network)
        stack.set(verify_grace=1, rate_limit_seconds=0)
        stack.web()
        stack.worker()
        done = at(stack, verify="true", fail_on_partial="true")
        assert (done.code, done.annotation) == (
            1,
            "::error::Running wp-cron on 6 sites; 1 of them took the call and ran nothing",
        )
        assert "| verified | 5 |" in done.summary
        assert "| stuck | 1 |" in done.summary
