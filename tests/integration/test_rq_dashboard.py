"""`rq-dashboard --json` shows a run with its progress, and nothing that came from a site."""

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.horses import begin, late_sites, running, until_called
from tests.integration.processes import until
from tests.integration.stack import Stack, free_port
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

MARKER = "planted-by-a-site"


@pytest.fixture
def network(stack: Stack) -> Iterator[DemoNetwork]:
    """200 sites with a marker in their paths; some fail, one redirects to an address with the marker."""
    made = late_sites(200, latency_ms=50)
    for site in made.sites.all:
        site.path = f"/{MARKER}{site.path}"
    made.sites.all[1].behaviour, made.sites.all[2].behaviour = Behaviour.ERROR500, Behaviour.REDIRECT
    made.sites.all[2].redirect_to = f"http://127.0.0.9/{MARKER}"
    with running(made) as network:
        stack.use(network)
        stack.set(concurrency=10, batch_size=10)
        yield network


@pytest.fixture
def dashboard(stack: Stack) -> Iterator[httpx.Client]:
    """rq-dashboard as README starts it."""
    port = free_port()
    stack.environ["RQ_DASHBOARD_REDIS_URL"] = stack.redis_url
    stack.environ["PYTHONWARNINGS"] = "default"  # its own and its framework's warnings are not ours
    process = stack.start("dashboard", command=f"rq-dashboard --json --bind 127.0.0.1 --port {port}")
    stack.environ["PYTHONWARNINGS"] = "error"
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/0", timeout=10) as client:
        stack.wait_for_answer("dashboard", process, client, "/data/queues.json")
        yield client


def test_the_dashboard_shows_a_run_with_its_progress(
    stack: Stack, network: DemoNetwork, dashboard: httpx.Client
) -> None:
    """While a run is walked its job says how many sites are done; no site's text is anywhere, then or later."""
    stack.web()
    stack.worker()
    run_id = begin(stack)
    seen: list[str] = []

    def look(registry: str) -> str:
        answer = dashboard.get(f"/data/jobs/all-sites-cron/{registry}/10/asc/1.json")
        jobs = answer.raise_for_status().json()["jobs"]
        seen.append(answer.text)
        seen.extend(dashboard.get(f"/data/job/{job['id']}.json").raise_for_status().text for job in jobs)
        return " ".join(job["description"] for job in jobs)

    def progress() -> bool:
        found = re.search(rf"Walk run {run_id}: (\d+) of (\d+) sites", look("started"))
        return found is not None and 0 < int(found[1]) < int(found[2]) <= 200

    until_called(network, 10)
    until(progress)
    stack.ended(run_id)
    until(lambda: f"Walk run {run_id}" in look("finished"))
    ended = [json.loads(text) for text in seen if '"result":"partial"' in text]
    assert json.loads(ended[-1]["metadata"])["sites_done"] == 200
    seen.extend(dashboard.get(f"/data/{name}.json").text for name in ("workers", "queues"))
    for text in seen:
        assert MARKER not in text
        assert "127.0.0." not in text.replace("127.0.0.1", "")
