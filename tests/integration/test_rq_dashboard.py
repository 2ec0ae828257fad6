"""rq-dashboard at /rq shows a run with its progress, and nothing that came from a site."""

import json
import re
import sys
from collections.abc import Iterator

import pytest

from console.session import begin
from tests.integration.horses import late_sites, running, until_called
from tests.integration.page import Here, Person, active
from tests.integration.processes import until
from tests.integration.stack import TOKEN, Stack
from tests.integration.test_page_sign_in import bearing
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


def test_the_dashboard_shows_a_run_with_its_progress(stack: Stack, network: DemoNetwork) -> None:
    """While a run is walked its job says how many sites are done; no site's text is anywhere, then or later.

    Nor is the address of Redis; and the worker is seen with its job, which rq-dashboard alone could not read.
    """
    stack.web()
    stack.worker()
    person = Person(stack)
    person.sign_in()
    person.get("/")
    person.post("/")
    run_id = active(stack)
    seen: list[str] = []

    def read(path: str) -> str:
        seen.append(person.get(f"/rq/0/{path}").raise_for_status().text)
        return seen[-1]

    def look(registry: str) -> str:
        jobs = json.loads(read(f"data/jobs/all-sites-cron/{registry}/10/asc/1.json"))["jobs"]
        for job in jobs:
            read(f"data/job/{job['id']}.json")
            read(f"view/job/{job['id']}")
        return " ".join(job["description"] for job in jobs)

    def progress() -> bool:
        found = re.search(rf"Walk run {run_id}: (\d+) of (\d+) sites", look("started"))
        return found is not None and 0 < int(found[1]) < int(found[2]) <= 200

    until_called(network, 10)
    until(progress)
    assert f"Walk run {run_id}" in read("data/workers.json")
    stack.ended(run_id)
    until(lambda: f"Walk run {run_id}" in look("finished"))
    ended = [json.loads(text) for text in seen if '"result":"partial"' in text]
    assert json.loads(ended[-1]["metadata"])["sites_done"] == 200
    for path in ("data/queues.json", "data/workers.json", "view/queues", "view/workers", "view/jobs"):
        read(path)
    seen.append(person.get("/rq").raise_for_status().text)
    for text in seen:
        assert MARKER not in text
        assert "127.0.0." not in text
        assert stack.redis_url.partition("://")[2] not in text


def test_without_its_extra_there_is_a_line_instead(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says how to get it; the page is there all the same."""
    monkeypatch.setitem(sys.modules, "rq_dashboard", None)
    for path in ("/rq", "/rq/0/view/queues"):
        answer = Here(stack).ask("GET", path, bearing(begin("default", "run", TOKEN)))
        assert (answer.status_code, "pip install '.[dashboard]'" in answer.text) == (404, True)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    answer = Here(stack).ask("GET", "/rq")
    assert (answer.status_code, "rq-dashboard '.[console,dashboard]'" in answer.text) == (404, True)
