"""Polls that change nothing cost next to nothing: ETag and 304 (RFC 9110 §8.8.3 and §13.1.2)."""

import pytest

from jobs import keys
from tests.integration.stack import API, Stack
from wordpress.demo_network import DemoNetwork

POLLED = ["runs", "runs/{run_id}", "runs/{run_id}/sites?outcome=failed", "sites?state=failing", "sites/3"]


def address(web: Stack, path: str) -> str:
    """What is polled, of a run that has ended."""
    return f"{API}/{path.format(run_id=web.trigger().json()['run_id'])}"


@pytest.mark.parametrize("path", POLLED)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_it_already_gets_no_body(web: Stack, sites: DemoNetwork, path: str, method: str) -> None:
    """304 with the same ETag; weakly compared, among others, and for `*`."""
    where = address(web, path)
    first = web.client.get(where)
    tag = first.headers["etag"]
    assert (first.status_code, tag[:3]) == (200, 'W/"')
    for known in (tag, tag.removeprefix("W/"), f'"a", {tag}', "*"):
        again = web.client.request(method, where, headers={"If-None-Match": known})
        assert (again.status_code, again.headers["etag"], again.content) == (304, tag, b"")
        assert again.headers["cache-control"] == "no-store"


def test_what_has_changed_is_sent(web: Stack, sites: DemoNetwork) -> None:
    """Another ETag with another body, and none of the old one's 304."""
    run_id = web.trigger(defer=1).json()["run_id"]
    before = web.client.get(f"{API}/runs")
    web.client.post(f"{API}/process-queue")
    for path in ("runs", f"runs/{run_id}"):
        after = web.client.get(f"{API}/{path}", headers={"If-None-Match": f'{before.headers["etag"]}, "x"'})
        assert (after.status_code, after.headers["etag"] != before.headers["etag"]) == (200, True)


def test_only_what_is_read_has_an_etag(web: Stack, sites: DemoNetwork) -> None:
    """`*` never keeps a run from being started, nor hides an error or a scrape."""
    anything = {"If-None-Match": "*"}
    ran = web.client.get(f"{API}/run", headers=anything)
    assert (ran.status_code, ran.json()["count"]) == (200, 6)
    cooling = web.client.get(f"{API}/run", headers=anything)
    unknown = web.client.get(f"{API}/runs/{'0' * 16}", headers=anything)
    scraped = web.client.get("/metrics", headers=anything)
    assert [cooling.status_code, unknown.status_code, scraped.status_code] == [429, 404, 200]
    assert not any("etag" in answer.headers for answer in (ran, cooling, unknown, scraped))
    assert web.redis.exists(keys.COOLDOWN)
