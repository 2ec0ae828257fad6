"""GET /metrics: the figures of all processes, the same whichever web process is asked (CONTRACT section 7)."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs import __version__, keys, rq_names
from jobs.outcomes import Outcome
from jobs.runs import FINAL, Run
from tests.integration.horses import begin, late_sites, until_called
from tests.integration.processes import until
from tests.integration.stack import API, ROOT, Stack, free_port
from wordpress.demo_network import DemoNetwork, running
from wordpress.demo_sites import Behaviour

Figures = dict[tuple[str, ...], float]
NAMES = {
    "runs": ("counter", "status"),
    "site_requests": ("counter", "outcome"),
    "site_request_duration_seconds": ("histogram", "le"),
    "run_duration_seconds": ("histogram", "le"),
    "sites_overdue": ("gauge",),
    "oldest_due_age_seconds": ("gauge",),
    "queue_jobs": ("gauge",),
    "queue_oldest_job_age_seconds": ("gauge",),
    "workers": ("gauge", "state"),
    "last_success_timestamp_seconds": ("gauge",),
    "build_info": ("gauge", "version"),
}


def families(client: httpx.Client) -> list[Any]:
    answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return list(text_string_to_metric_families(answer.text))


def scrape(client: httpx.Client) -> Figures:
    """(name without its prefix, label values …) → value."""
    return {
        (sample.name.removeprefix("all_sites_cron_"), *sample.labels.values()): sample.value
        for family in families(client)
        for sample in family.samples
    }


def by_label(figures: Figures, name: str) -> dict[str, float]:
    """The samples of a name that are not 0, by their one label."""
    return {key[1]: value for key, value in figures.items() if key[0] == name and value}


def outcomes(run: Run) -> dict[str, int]:
    return {outcome.name.lower(): n for outcome, n in run.counts.items()}


@contextmanager
def second_web(stack: Stack) -> Iterator[httpx.Client]:
    """One more web process, on a port of its own, and a client for it."""
    stack.environ["PORT"] = str(free_port())
    process = stack.start("web")
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.environ['PORT']}", headers=stack.client.headers) as client:
        stack.wait_for_answer("web", process, client, "/livez")
        yield client


def test_names_types_and_labels_are_the_contracts(web: Stack) -> None:
    """No other, all of them from the first scrape on, and never a site among the labels."""
    found = families(web.client)
    assert {f.name: f.type for f in found} == {f"all_sites_cron_{name}": kind for name, (kind, *_) in NAMES.items()}
    for family in found:
        _, *labels = NAMES[family.name.removeprefix("all_sites_cron_")]
        plain = {f"{family.name}_sum", f"{family.name}_count"}
        assert {tuple(s.labels) for s in family.samples if s.name not in plain} == {tuple(labels)}
    figures = scrape(web.client)
    assert {key: value for key, value in figures.items() if value} == {("build_info", __version__): 1}
    assert {key[1] for key in figures if key[0] == "runs_total"} == FINAL
    triggered = {outcome.name.lower() for outcome in Outcome} - {"not_due"}
    assert {key[1] for key in figures if key[0] == "site_requests_total"} == triggered


def test_every_process_shows_what_two_workers_did(stack: Stack) -> None:
    """Two web processes show the same; the counters are the runs' own counts, the histogram has every request."""
    with running(DemoNetwork.plain(600, addresses=4, latency_ms=20)) as network:
        for number, behaviour in enumerate(("error500", "404", "reset", "redirect", "hang"), 10):
            network.sites.all[number].behaviour = Behaviour(behaviour)
        stack.use(network)
        stack.set(max_retries=0, concurrency=20, request_timeout=1, rate_limit_seconds=0)
        stack.web()
        with second_web(stack) as other:
            for _ in range(2):
                stack.worker()
            first = stack.ended(begin(stack))
            second = stack.run(stack.trigger().json()["run_id"])
            until(lambda: by_label(scrape(other), "workers") == {"idle": 2})
            here, there = scrape(stack.client), scrape(other)
    assert here == there
    assert (first.status, second.status) == ("partial", "partial")
    assert by_label(here, "runs_total") == {"partial": 2}
    assert by_label(here, "site_requests_total") == {name: 2 * n for name, n in outcomes(first).items()}
    assert outcomes(first) == outcomes(second)
    assert here["site_request_duration_seconds_count",] == network.sites.calls == 1200
    assert here["site_request_duration_seconds_bucket", "0.05"] < 1200
    assert here["site_request_duration_seconds_bucket", "0.5"] >= 1190
    assert here["site_request_duration_seconds_sum",] >= 1190 * 0.02 + 2
    assert here["run_duration_seconds_count",] == here["run_duration_seconds_bucket", "+Inf"] == 2
    seconds = sum((run.ended_ms or 0) - (run.started_ms or 0) for run in (first, second)) / 1000
    assert here["run_duration_seconds_sum",] == pytest.approx(seconds)
    assert here["last_success_timestamp_seconds",] == 0, "some sites failed"


def test_a_success_has_its_time(web: Stack, sites: DemoNetwork) -> None:
    """Unix seconds of the run's end."""
    run = web.run(web.trigger().json()["run_id"])
    assert run.status == "succeeded"
    assert scrape(web.client)["last_success_timestamp_seconds",] == (run.ended_ms or 0) / 1000
    assert by_label(scrape(web.client), "runs_total") == {"succeeded": 1}


def test_a_job_that_waits(web: Stack, sites: DemoNetwork) -> None:
    """How many, and since when the first of them does; no worker is there."""
    run_id = web.trigger(defer=1).json()["run_id"]
    job = web.redis.hget(keys.run(run_id), "spare")
    assert isinstance(job, bytes)
    web.redis.hset(rq_names.JOB + job.decode(), "enqueued_at", "2026-01-01T00:00:00.000000Z")
    figures = scrape(web.client)
    assert figures["queue_jobs",] == 1
    assert figures["queue_oldest_job_age_seconds",] == pytest.approx(time.time() - 1767225600, abs=60)
    assert by_label(figures, "workers") == {}
    assert by_label(figures, "runs_total") == {}
    assert web.trigger().json()["run_id"] == run_id


@pytest.mark.parametrize("enqueued", [None, "yesterday", ""])
def test_a_foreign_job_does_not_break_a_scrape(web: Stack, enqueued: str | None) -> None:
    """Anybody may put anything into the queue; its age is not known then."""
    web.redis.rpush(rq_names.queue("all-sites-cron"), "foreign")
    if enqueued is not None:
        web.redis.hset(f"{rq_names.JOB}foreign", "enqueued_at", enqueued)
    figures = scrape(web.client)
    assert (figures["queue_jobs",], figures["queue_oldest_job_age_seconds",]) == (1, 0)


def test_workers_are_busy_or_idle(stack: Stack) -> None:
    """By what RQ keeps of each: one that left, or whose record has expired, is not counted; requests are, meanwhile."""
    with running(late_sites(150, latency_ms=100)) as network:
        stack.use(network)
        stack.set(concurrency=5, origin_concurrency=5)
        stack.web()
        worker = stack.worker()
        until(lambda: by_label(scrape(stack.client), "workers") == {"idle": 1})
        run_id = begin(stack)
        until_called(network, 20)
        assert by_label(scrape(stack.client), "workers") == {"busy": 1}
        until(lambda: 0 < scrape(stack.client)["site_request_duration_seconds_count",] < 150)
        stack.ended(run_id)
        stack.redis.zadd(keys.WORKERS, {"killed": time.time() * 1000})
        until(lambda: by_label(scrape(stack.client), "workers") == {"idle": 1})
        worker.terminate()
        worker.wait(15)
    assert by_label(scrape(stack.client), "workers") == {}


def test_overdue_sites(web: Stack) -> None:
    """Those due for longer than OVERDUE_AFTER (six hours), and the age of the oldest."""
    now = time.time()
    web.redis.zadd(keys.DUE, {"1": now - 30_000, "2": now - 21_700, "3": now - 21_000, "4": now - 5})
    figures = scrape(web.client)
    assert figures["sites_overdue",] == 2
    assert figures["oldest_due_age_seconds",] == pytest.approx(30_000, abs=60)


def test_uses_of_legacy_names(web: Stack) -> None:
    """By name, once there are any."""
    web.redis.hset(keys.LEGACY_USES, mapping={"dss-cron/v1/run": "3 1800000000000", "DSS_CRON_BATCH_SIZE": "1 1"})
    web.redis.expire(keys.LEGACY_USES, 60)
    assert by_label(scrape(web.client), "legacy_uses_total") == {"dss-cron/v1/run": 3, "DSS_CRON_BATCH_SIZE": 1}


def test_it_is_no_route_of_wordpress(web: Stack) -> None:
    """Not in the namespace's index, not under /wp-json; GET and HEAD only; a token is asked for in JSON."""
    assert not [route for route in web.client.get(API).json()["routes"] if "metrics" in route]
    assert web.client.get("/wp-json/metrics").status_code == 404
    wrong = web.client.post("/metrics")
    assert (wrong.status_code, set(wrong.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})
    refused = web.client.get("/metrics", headers={"Authorization": ""})
    assert (refused.status_code, refused.json()["code"]) == (401, "all_sites_cron_auth_missing")


def test_alerts_and_readme_name_metrics_that_exist(web: Stack) -> None:
    """Each rule asks for samples that a scrape has; the README's table has every one of the contract's."""
    samples = {f"all_sites_cron_{key[0]}" for key in scrape(web.client)}
    asked = set(re.findall(r"all_sites_cron_\w+", (ROOT / "docs" / "alerts.yml").read_text()))
    assert asked
    assert asked <= samples
    table = set(re.findall(r"^\| `(\w+)", (ROOT / "README.md").read_text().partition("## Metrics")[2], re.MULTILINE))
    assert {f"{name}_total" if NAMES[name][0] == "counter" else name for name in NAMES} <= table
