"""The history of runs, and the sites of a run by outcome, over HTTP (CONTRACT section 1)."""

import json
from typing import Any

import pytest

from jobs import keys
from jobs.scripts import Scripts
from jobs.settings import load
from tests.integration.stack import API, Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

OF_RUN = f"{API}/runs/00000000000000aa"


def made(web: Stack, run_id: str, age_ms: int = 0, **fields: object) -> None:
    """A run record, queued so long ago."""
    seconds, micros = web.redis.time()
    queued = seconds * 1000 + micros // 1000 - age_ms
    web.redis.zadd(keys.RUNS, {run_id: queued})
    record = {"status": "succeeded", "mode": "redis", "by": "test", "queued_ms": queued, **fields}
    web.redis.hset(keys.run(run_id), mapping={name: str(value) for name, value in record.items()})
    for key in (keys.RUNS, keys.run(run_id)):
        web.redis.expire(key, 3600)


def failed(web: Stack, count: int, *, outcome: str = "failed", reason: str | None = "dns", first: int = 1) -> None:
    """So many sites of the run that did not go well."""
    text = json.dumps(["http://a.example", outcome, reason, "why"])
    web.redis.hset(f"{keys.run('00000000000000aa')}:failed", mapping={str(first + n): text for n in range(count)})
    web.redis.expire(f"{keys.run('00000000000000aa')}:failed", 3600)


def listed(web: Stack, path: str, **query: object) -> dict[str, Any]:
    answer = web.client.get(path, params={name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_runs_are_listed_the_newest_first(web: Stack, sites: DemoNetwork) -> None:
    """As …/runs/{id} shows each, less its failing sites, of which the number is told."""
    assert listed(web, f"{API}/runs") == {"total": 0, "page": 1, "per_page": 50, "runs": []}
    sites.sites.by_id[3].behaviour = Behaviour.ERROR500
    first = web.trigger().json()["run_id"]
    web.redis.delete(keys.COOLDOWN)
    second = web.trigger(defer=1).json()["run_id"]
    shown = listed(web, f"{API}/runs")
    assert [(run["run_id"], run["status"]) for run in shown["runs"]] == [(second, "queued"), (first, "partial")]
    whole = web.client.get(f"{API}/runs/{first}").json()
    assert len(whole.pop("failing")) == 1
    assert shown["runs"][1] == whole
    assert whole["failing_total"] == 1


def test_runs_are_paged(web: Stack) -> None:
    """130 of them, 60 a page; behind the last one there is nothing."""
    for n in range(130):
        made(web, f"{n:016x}", age_ms=n * 1000)
    pages = [listed(web, f"{API}/runs", page=page, per_page=60) for page in (1, 2, 3, 4)]
    assert [len(page["runs"]) for page in pages] == [60, 60, 10, 0]
    assert {page["total"] for page in pages} == {130}
    assert [run["run_id"] for page in pages for run in page["runs"]] == [f"{n:016x}" for n in range(130)]


def test_a_record_that_has_expired_is_left_out(web: Stack) -> None:
    """The others of its page are shown; and the next sweep has it no longer counted, whatever else is as old."""
    week = 604_800_000
    made(web, "00000000000000aa")
    made(web, "00000000000000bb", age_ms=week + 10_000)
    made(web, "00000000000000cc", age_ms=week + 20_000, status="queued")
    web.redis.delete(keys.run("00000000000000bb"))
    shown = [run["run_id"] for run in listed(web, f"{API}/runs")["runs"]]
    assert shown == ["00000000000000aa", "00000000000000cc"]
    settings = load({"REDIS_URL": web.redis_url}).settings
    Scripts(web.redis, settings).sweep(job="walk-test", iso="2030-01-01T00:00:00.000000Z")
    assert (listed(web, f"{API}/runs")["total"], listed(web, f"{API}/runs", per_page=1, page=2)["page"]) == (2, 2)


def test_the_sites_of_a_run_by_outcome(web: Stack, sites: DemoNetwork) -> None:
    """Each with its reason, as they were kept; those that went well are not."""
    sites.sites.by_id[3].behaviour = Behaviour.ERROR500
    sites.sites.by_id[5].latency_ms = 3000
    where = web.trigger().headers["location"]
    failing = listed(web, f"{where}/sites", outcome="failed")
    url = sites.sites.by_id[3].url
    one = {"site_id": "3", "url": url, "outcome": "failed", "reason": "http_5xx", "detail": "answered 500"}
    assert failing == {"outcome": "failed", "total": 1, "page": 1, "per_page": 50, "sites": [one]}
    assert [site["site_id"] for site in listed(web, f"{where}/sites", outcome="timeout")["sites"]] == ["5"]
    assert listed(web, f"{where}/sites", outcome="skipped")["sites"] == []


def test_the_sites_of_a_run_are_paged_in_their_order(web: Stack) -> None:
    """By number, not by text."""
    made(web, "00000000000000aa", **{"c:n": 130})
    failed(web, 130)
    pages = [listed(web, f"{OF_RUN}/sites", outcome="failed", page=page, per_page=60) for page in (1, 2, 3, 4)]
    assert [site["site_id"] for page in pages for site in page["sites"]] == [str(n) for n in range(1, 131)]
    assert {page["total"] for page in pages} == {130}
    assert not any("truncated" in page for page in pages)


@pytest.mark.parametrize(
    ("counts", "outcome", "truncated"),
    [
        ({"c:n": 3}, "failed", False),
        ({"c:n": 2, "c:5": 2}, "failed", True),
        ({"c:t": 1}, "timeout", False),
        ({"c:t": 2}, "timeout", True),
        ({"c:h": 1, "c:s": 900}, "skipped", False),
        ({"c:h": 2, "c:s": 900}, "skipped", True),
    ],
)
def test_it_says_when_more_failed_than_are_kept(
    web: Stack, counts: dict[str, int], outcome: str, truncated: bool
) -> None:
    """`total` is what can be read here; sites with nothing due are only ever counted."""
    made(web, "00000000000000aa", **counts)
    failed(web, 3)
    failed(web, 1, outcome="timeout", reason=None, first=4)
    failed(web, 1, outcome="skipped", reason="host_down", first=5)
    shown = listed(web, f"{OF_RUN}/sites", outcome=outcome)
    assert shown["total"] == len(shown["sites"]) == {"failed": 3}.get(outcome, 1)
    assert shown.get("truncated", False) is truncated


@pytest.mark.parametrize(
    ("path", "query", "named"),
    [
        (f"{API}/runs", {"page": "0"}, "page must be a whole number from 1 to 1000000."),
        (f"{API}/runs", {"per_page": "101"}, "per_page must be a whole number from 1 to 100."),
        (f"{OF_RUN}/sites", {}, "outcome must be one of failed, timeout, skipped."),
        (f"{OF_RUN}/sites", {"outcome": "dispatched"}, "outcome must be one of failed, timeout, skipped."),
        (f"{OF_RUN}/sites", {"outcome": "failed", "page": "x"}, "page must be a whole number from 1 to 1000000."),
    ],
)
def test_a_wrong_parameter_names_what_is_allowed(web: Stack, path: str, query: dict[str, str], named: str) -> None:
    """400; sites that went well are not kept one by one."""
    made(web, "00000000000000aa")
    answer = web.client.get(path, params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, "rest_invalid_param")
    assert named in answer.json()["data"]["params"].values()


def test_the_sites_of_an_unknown_run_are_not_found(web: Stack) -> None:
    """404 as for the run itself."""
    answer = web.client.get(f"{OF_RUN}/sites", params={"outcome": "failed"})
    assert (answer.status_code, answer.json()["code"]) == (404, "rest_run_not_found")
