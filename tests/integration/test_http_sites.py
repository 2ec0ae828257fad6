"""Cron health over HTTP and on the command line: `…/sites/{id}`, `…/sites?state=`, `sites --overdue` (CONTRACT 1)."""

import subprocess
import sys
from typing import Any

import pytest

from jobs import keys
from tests.integration.stack import API, ROOT, Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour


def site(web: Stack, site_id: str) -> dict[str, Any]:
    answer = web.client.get(f"{API}/sites/{site_id}")
    assert answer.status_code == 200
    return dict(answer.json())


def cooled(web: Stack) -> None:
    """Another run may start."""
    web.redis.delete(keys.COOLDOWN)


def test_a_site_that_was_dispatched_is_healthy(web: Stack, sites: DemoNetwork) -> None:
    """With the time of its last dispatch; nothing verified it, as a file knows no due times."""
    web.client.get(f"{API}/run")
    seen = site(web, "2")
    assert seen.pop("last_dispatch_at").startswith("20")
    assert seen.pop("url").startswith("http://127.0.0.")
    nothing = {"last_verified_at": None, "failing": None, "due_since": None, "lag_seconds": None}
    assert seen == {"site_id": "2", "state": "healthy", **nothing}


def test_a_failing_site_counts_its_runs_and_recovers(web: Stack, sites: DemoNetwork) -> None:
    """The streak has the last reason and the first failure's time; one dispatch ends it."""
    sites.sites.by_id[3].behaviour = Behaviour.ERROR500
    for _ in range(2):
        web.client.get(f"{API}/run")
        cooled(web)
    failing = site(web, "3")
    assert (failing["state"], failing["failing"]["runs"], failing["failing"]["reason"]) == ("failing", 2, "http_5xx")
    listed = web.client.get(f"{API}/sites", params={"state": "failing"}).json()
    assert listed == {"state": "failing", "total": 1, "page": 1, "per_page": 50, "sites": [failing]}
    sites.sites.by_id[3].behaviour = Behaviour.OK
    web.client.get(f"{API}/run")
    assert site(web, "3")["state"] == "healthy"
    assert web.client.get(f"{API}/sites", params={"state": "failing"}).json()["total"] == 0


def test_sites_of_a_state_are_paged_the_longest_in_it_first(web: Stack) -> None:
    """250 overdue sites and one that is due for a minute only."""
    now = web.redis.time()[0]
    web.redis.zadd(keys.DUE, {str(n): now - 30000 - n for n in range(250)} | {"new": now - 60})
    pages = [
        web.client.get(f"{API}/sites", params={"state": "overdue", "page": page, "per_page": 100}).json()
        for page in (1, 2, 3, 4)
    ]
    assert [len(page["sites"]) for page in pages] == [100, 100, 50, 0]
    assert {page["total"] for page in pages} == {250}
    assert [s["site_id"] for page in pages for s in page["sites"]] == [str(n) for n in range(249, -1, -1)]
    assert pages[0]["sites"][0]["lag_seconds"] in range(30249, 30300)
    assert pages[0]["sites"][0]["state"] == "overdue"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({}, "state must be one of failing, overdue, stuck."),
        ({"state": "healthy"}, "state must be one of failing, overdue, stuck."),
        ({"state": "stuck", "page": "0"}, "page must be a whole number from 1 to 1000000."),
        ({"state": "stuck", "per_page": "101"}, "per_page must be a whole number from 1 to 100."),
        ({"state": "stuck", "per_page": "ten"}, "per_page must be a whole number from 1 to 100."),
        ({"state": "stuck", "page": "\u0661"}, "page must be a whole number from 1 to 1000000."),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(web: Stack, query: dict[str, str], named: str) -> None:
    """400, as WordPress's REST API says it."""
    answer = web.client.get(f"{API}/sites", params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, "rest_invalid_param")
    assert named in answer.json()["data"]["params"].values()


@pytest.mark.parametrize("site_id", ["4711", "u-", "\u0661", "9" * 5000])
def test_a_site_nothing_is_known_of_is_not_found(web: Stack, site_id: str) -> None:
    """404, in the words of the REST API; more digits than Python reads are no number either."""
    answer = web.client.get(f"{API}/sites/{site_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "rest_site_not_found")


def overdue(stack: Stack) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "sites", "--overdue"]
    return subprocess.run(command, cwd=ROOT, env=stack.environ, capture_output=True, text=True, timeout=60)


def test_the_command_line_lists_overdue_sites(web: Stack, sites: DemoNetwork) -> None:
    """One a line with how late it is, exit code 1; with none 0."""
    web.client.get(f"{API}/run")
    assert overdue(web).returncode == 0
    now = web.redis.time()[0]
    web.redis.zadd(keys.DUE, {"2": now - 90000, "3": now - 60})
    ended = overdue(web)
    assert ended.returncode == 1
    (line,) = ended.stdout.splitlines()
    assert line.startswith(f"2\t{site(web, '2')['url']}\tdue for 1 day, 1:00:0")
    assert line.endswith("\toverdue")
