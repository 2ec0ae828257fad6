"""The answers of /run: status, keys, exact texts and headers of each case, JSON and ga=1 (CONTRACT section 2)."""

import re
import time
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs import keys
from tests.integration.processes import until
from tests.integration.stack import API, Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

QUEUED = "Cron job queued to Redis for background processing"
NO_WORKER = "::warning::Cron job queued to Redis, but no worker is listening\n"
LOCKED = "Another cron process is currently running. Please try again later."
TIMESTAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def assert_names_its_run(answer: httpx.Response) -> str:
    """The run's id in the body and in Location; Cache-Control."""
    run_id = str(answer.json()["run_id"])
    assert answer.headers["location"] == f"{API}/runs/{run_id}"
    assert answer.headers["cache-control"] == "no-store"
    return run_id


def without_facts(answer: httpx.Response) -> dict[str, Any]:
    """The body less the run's id and a timestamp of the last minute."""
    body: dict[str, Any] = answer.json()
    assert_names_its_run(answer)
    del body["run_id"]
    stamp = body.pop("timestamp")
    assert re.fullmatch(TIMESTAMP, stamp)
    assert stamp[:-3] in {time.strftime("%Y-%m-%d %H:%M", time.gmtime(time.time() - ago)) for ago in (0, 60)}, "UTC"
    return body


def ga(answer: httpx.Response, status: int) -> str:
    """The line of a ga=1 answer."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert answer.text.endswith("\n")
    assert answer.text.count("\n") == 1
    return answer.text


def test_sync_done(web: Stack, sites: DemoNetwork) -> None:
    """200 with the plugin's keys, when every site's events ran."""
    answer = web.trigger()
    assert answer.status_code == 200
    figures = {"count": 6, "dispatched": 6, "skipped": 0, "timeouts": 0, "errors": 0}
    assert without_facts(answer) == {"success": True, "message": "", "endpoint": "rest"} | figures
    assert sites.stats()["ran_sites"] == 6


def test_sync_done_in_actions_text(web: Stack, sites: DemoNetwork) -> None:
    """One notice with the count; Location points to the run here, too."""
    answer = web.trigger(ga=1)
    assert ga(answer, 200) == "::notice::Running wp-cron on 6 sites\n"
    assert web.client.get(answer.headers["location"]).json()["count"] == 6


@pytest.mark.parametrize("failing", [1, 3, 4])
def test_sync_some_failed(web: Stack, sites: DemoNetwork, failing: int) -> None:
    """Three failing sites are named with their texts, then `...`; a timeout is no error."""
    for site in sites.sites.all[:failing]:
        site.behaviour = Behaviour.ERROR500
    named = "; ".join(f"Error for {site.url}: answered 500" for site in sites.sites.all[: min(failing, 3)])
    message = f"Completed with {failing} error(s): {named}{'...' if failing > 3 else ''}"
    answer = web.trigger()
    assert answer.status_code == 200
    figures = {"count": 6, "dispatched": 6 - failing, "skipped": 0, "timeouts": 0, "errors": failing}
    said = {"success": False, "error_code": "PARTIAL_FAILURE", "message": message, "endpoint": "rest"}
    assert without_facts(answer) == said | figures
    web.redis.delete(keys.COOLDOWN)
    assert ga(web.trigger(ga=1), 200) == f"::warning::{message}\n"


def test_a_timeout_is_no_error(web: Stack, sites: DemoNetwork) -> None:
    """A site that got the trigger and did not answer in time counts, and the run is a success."""
    sites.sites.by_id[2].behaviour = Behaviour.HANG
    answer = web.trigger()
    figures = {"count": 6, "dispatched": 5, "skipped": 0, "timeouts": 1, "errors": 0}
    assert without_facts(answer) == {"success": True, "message": "", "endpoint": "rest"} | figures


def test_what_a_site_sent_stays_inside_its_command(web: Stack, sites: DemoNetwork) -> None:
    """A percent sign in a text from outside is escaped, so that no second command can begin."""
    site = sites.sites.by_id[1]
    site.behaviour, site.redirect_to = Behaviour.REDIRECT, "http://evil.example/%0A::error::x##[error]y"
    line = ga(web.trigger(ga=1), 200)
    site.redirect_to = ""
    assert line.startswith("::warning::Completed with 1 error(s): ")
    assert "/%250A::error::x" in line
    assert "##[" not in line


@pytest.fixture
def with_sites(stack: Stack) -> Any:
    """A function: start a web process on a site list with this text."""

    def start(text: str | None, suffix: str = ".csv") -> Stack:
        path = stack.folder / f"list{suffix}"
        if text is not None:
            path.write_text(text)
        stack.set(sites=path)
        stack.web()
        return stack

    return start


def test_no_public_site(with_sites: Any) -> None:
    """200, no success, an error line; the cooldown is given back."""
    stack = with_sites("blog_id,url,public,archived,deleted,spam\n1,http://127.0.0.1/,0,0,0,0\n")
    message = "No public sites found in the network"
    answer = stack.trigger()
    assert answer.status_code == 200
    assert without_facts(answer) == {"success": False, "count": 0, "message": message, "endpoint": "rest"}
    assert ga(stack.trigger(ga=1), 200) == f"::error::{message}\n"


def test_a_source_that_cannot_be_read(with_sites: Any) -> None:
    """502 SOURCE_ERROR names the file, without a stack trace, and gives its claim on the cooldown back."""
    stack = with_sites(None)
    answer = stack.trigger()
    assert answer.status_code == 502
    assert (answer.json()["success"], answer.json()["error_code"]) == (False, "SOURCE_ERROR")
    assert str(stack.folder / "list.csv") in answer.json()["message"]
    run_id = assert_names_its_run(answer)
    assert stack.run(run_id).status == "failed"
    line = ga(stack.trigger(ga=1), 502)
    assert line == f"::error::{answer.json()['message']}\n"
    assert "Traceback" not in line + answer.text


def test_no_source_at_all(stack: Stack) -> None:
    """Without SITES the service answers 502 and names the setting."""
    stack.web()
    answer = stack.trigger()
    assert (answer.status_code, answer.json()["error_code"]) == (502, "SOURCE_ERROR")
    assert "ALL_SITES_CRON_SITES" in answer.json()["message"]


def test_an_internal_error(web: Stack, sites: DemoNetwork) -> None:
    """A record that this project did not write: 500 INTERNAL_ERROR, the trace in the log alone."""
    run_id = web.trigger().json()["run_id"]
    web.redis.hset(keys.run(run_id), "queued_ms", "never")
    answer = web.client.get(f"{API}/runs/{run_id}")
    assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")
    assert answer.json()["success"] is False
    assert "Traceback" not in answer.text
    assert "ValueError" in web.log("web")
    assert ga(web.client.get(f"{API}/runs/{run_id}?ga=1"), 500).startswith("::error::")


def listening(redis: Redis) -> None:
    """A worker was heard of just now."""
    redis.zadd(keys.WORKERS, {"somebody": redis.time()[0] * 1000})
    redis.expire(keys.WORKERS, 60)


def test_deferred_to_a_worker(web: Stack, sites: DemoNetwork) -> None:
    """202, queued; a worker listens, so there is no warning."""
    listening(web.redis)
    answer = web.trigger(defer=1)
    assert answer.status_code == 202
    assert without_facts(answer) == {"success": True, "status": "queued", "message": QUEUED, "mode": "redis"}
    joined = web.trigger(defer=1)
    assert joined.status_code == 202
    assert joined.json().items() >= {"coalesced": True, "run_id": answer.json()["run_id"]}.items()
    assert ga(web.trigger(defer=1, ga=1), 202) == f"::notice::{QUEUED}\n"
    assert sites.stats()["calls"] == 0


@pytest.mark.parametrize("silent", [True, False])
def test_deferred_without_a_worker(web: Stack, sites: DemoNetwork, silent: bool) -> None:
    """A 202 stays a 202, with `workers: 0` and a warning, when none was heard for 90 s."""
    if silent:
        web.redis.zadd(keys.WORKERS, {"gone": (web.redis.time()[0] - 91) * 1000})
        web.redis.expire(keys.WORKERS, 60)
    for answer in (web.trigger(defer=1), web.trigger(defer=1)):
        assert answer.status_code == 202
        assert answer.json().items() >= {"success": True, "workers": 0, "message": QUEUED}.items()
        assert "no worker is listening" in answer.json()["warning"]
    assert ga(web.trigger(defer=1, ga=1), 202) == NO_WORKER


def test_process_queue_counts_as_a_worker(web: Stack, sites: DemoNetwork) -> None:
    """Where process-queue was called in the last 10 min, a 202 carries no warning."""
    web.client.post(f"{API}/process-queue")
    assert 500 < int(web.redis.ttl(keys.PROCESS_QUEUE_SEEN)) <= 600
    assert not {"workers", "warning"} & set(web.trigger(defer=1).json())


@pytest.mark.parametrize("query", [{}, {"defer": 1}])
def test_cooling_down(web: Stack, sites: DemoNetwork, query: dict[str, int]) -> None:
    """429 with Retry-After and every key of the plugin; the run it names is the last one."""
    run_id = web.trigger().json()["run_id"]
    answer = web.trigger(**query)
    assert answer.status_code == 429
    left = answer.json()["retry_after"]
    assert 50 < left <= 60
    assert answer.headers["retry-after"] == str(left)
    assert assert_names_its_run(answer) == run_id
    assert without_facts(answer) == {
        "success": False,
        "error": "rate_limited",
        "message": f"Rate limited. Try again in {left} seconds.",
        "retry_after": left,
        "cooldown": 60,
        "last_run_gmt": (web.run(run_id).started_ms or 0) // 1000,
    }
    assert re.fullmatch(r"::error::Rate limited\. Try again in \d\d seconds\.\n", ga(web.trigger(ga=1, **query), 429))
    assert sites.stats()["calls"] == 6


@pytest.mark.parametrize(("ago", "left"), [(60_000, None), (59_100, None), (57_500, 3), (30_000, 30)])
def test_a_call_in_the_last_second_of_the_cooldown_is_admitted(
    web: Stack, sites: DemoNetwork, ago: int, left: int | None
) -> None:
    """A crontab's call that comes a little early is let in; seconds left are rounded up."""
    seconds, micro = web.redis.time()
    web.redis.set(keys.COOLDOWN, f"{seconds * 1000 + micro // 1000 - ago} 0123456789abcdef", ex=60)
    answer = web.trigger(defer=1)
    assert (answer.status_code, answer.json().get("retry_after")) == ((202, None) if left is None else (429, left))


@pytest.mark.parametrize("query", [{}, {"defer": 1}])
def test_a_run_is_running(web: Stack, sites: DemoNetwork, query: dict[str, int]) -> None:
    """409 with Retry-After names the running run, for sync and deferred calls."""
    for site in sites.sites.all:
        site.latency_ms = 1000
    queued = web.trigger(defer=1).json()["run_id"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{web.client.base_url}{API}/run", headers=web.client.headers, timeout=0.2)
    until(lambda: web.run(queued).status == "running")
    answer = web.trigger(**query)
    assert answer.status_code == 409
    assert 1 <= int(answer.headers["retry-after"]) <= 2, "the lock's lease"
    assert assert_names_its_run(answer) == queued
    assert answer.json() == {"success": False, "error": "locked", "message": LOCKED, "run_id": queued}
    assert ga(web.trigger(ga=1, **query), 409) == f"::warning::{LOCKED}\n"
    assert web.ended(queued).count == 6


@pytest.mark.parametrize("query", [{}, {"defer": 1}])
def test_deactivated(web: Stack, sites: DemoNetwork, query: dict[str, int]) -> None:
    """503 for every new run, also while one is queued, until it is taken back or its time has come."""
    web.redis.set(keys.DEACTIVATED, 0)
    answer = web.trigger(**query)
    assert answer.status_code == 503
    assert (answer.json()["success"], answer.json()["error"]) == (False, "deactivated")
    assert answer.headers["cache-control"] == "no-store"
    assert ga(web.trigger(ga=1, **query), 503) == f"::error::{answer.json()['message']}\n"
    web.redis.set(keys.DEACTIVATED, 1_000 * 4_102_444_800)
    assert "2100-01-01 00:00:00 UTC" in web.trigger(**query).json()["message"]
    web.redis.set(keys.DEACTIVATED, 1_000 * 1_000_000_000)
    assert web.trigger(**query).status_code in (200, 202)


def test_the_cooldown_is_the_setting_of_now(stack: Stack, network: DemoNetwork) -> None:
    """RATE_LIMIT_SECONDS=0 admits one run after the other, also after one that started under another setting."""
    first = stack.web()
    assert [stack.trigger().status_code for _ in range(2)] == [200, 429]
    first.terminate()
    first.wait(10)
    stack.set(rate_limit_seconds=0)
    stack.web()
    assert [stack.trigger().status_code for _ in range(2)] == [200, 200]
    assert network.stats()["calls"] == 3 * 120
