"""rq-dashboard at /rq: who may do what, and what a job of anybody's cannot do."""

import base64
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from rq import Queue, Worker
from rq.job import Job
from rq.registry import FailedJobRegistry

from console.rq_dashboard import READS
from console.session import begin
from jobs import rq_names
from tests.integration.page import Here, Person
from tests.integration.stack import ROOT, TOKEN, Stack
from tests.integration.test_page_sign_in import bearing
from tests.integration.test_rq_foreign_jobs import Opens

QUEUE = "neighbour"
SCRIPT = {"X-Requested-With": "XMLHttpRequest"}  # as jQuery's $.post sends it


@pytest.fixture
def person(web: Stack) -> Person:
    """Who is signed in."""
    made = Person(web)
    made.sign_in()
    return made


def failed(stack: Stack) -> Job:
    """A job of somebody else's that failed."""
    job = Queue(QUEUE, connection=stack.redis).enqueue("operator.add", 1, 2)
    stack.redis.lrem(rq_names.queue(QUEUE), 0, job.id)
    job.set_status("failed")  # type: ignore[arg-type]
    stack.redis.zadd(FailedJobRegistry(QUEUE, connection=stack.redis).key, {job.id: 4_000_000_000})
    return job


def test_every_route_that_changes_something_is_kept_from_reading() -> None:
    """And no other: what a later rq-dashboard brings is refused until somebody has looked at it."""
    from rq_dashboard import blueprint  # type: ignore[import-untyped]

    app = Flask("rq_dashboard")
    app.register_blueprint(blueprint)
    refused = set()
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<int:instance_number>", "0").lstrip("/")
        if not READS.fullmatch(path):
            refused.add(rule.endpoint.removeprefix("rq_dashboard."))
    changing = {"delete_job_view", "requeue_job_view", "requeue_all", "empty_queue", "compact_queue"}
    assert refused == changing | {"favicon", "queues_overview"}  # /0/, which nothing links to


@pytest.mark.parametrize("path", ["", "/0/view/queues", "/0/data/workers.json", "/static/css/main.css", "/requeue/x"])
def test_a_stranger_is_asked_to_sign_in(web: Stack, path: str) -> None:
    """Also for what is no secret."""
    answer = Person(web).get(f"/rq{path}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next=/rq{path}")


@pytest.mark.parametrize(
    "path", [f"requeue/{QUEUE}", f"/requeue/{QUEUE}", f"0/../requeue/{QUEUE}", "job/ID/requeue", "1/view/queues", "x"]
)
def test_reading_changes_nothing(web: Stack, person: Person, path: str) -> None:
    """No GET is passed on that requeues; what failed stays."""
    job = failed(web)
    for method in ("GET", "HEAD"):
        assert person.send(method, f"/rq/{path}".replace("ID", job.id)).status_code == 404
    assert web.redis.llen(rq_names.queue(QUEUE)) == 0


@pytest.mark.parametrize(
    ("settings", "scope", "headers", "code"),
    [
        ({}, "run", SCRIPT, "DASHBOARD_WRITE"),
        ({"dashboard_write": True}, "read", SCRIPT, "may read, but not"),
        ({"dashboard_write": True}, "run", {}, "from no page"),
        ({"dashboard_write": True}, "run", {**SCRIPT, "Sec-Fetch-Site": "cross-site"}, "another site"),
        ({"dashboard_write": True}, "run", {**SCRIPT, "Origin": "https://evil.example"}, "another site"),
    ],
)
def test_writing_is_refused(
    stack: Stack, settings: dict[str, Any], scope: str, headers: Mapping[str, str], code: str
) -> None:
    """Unless it is set, the token may start runs, and a page of this host sent it."""
    visitor = Here(stack, auth_tokens="ro:read:another", **settings)
    session = begin("default", "run", TOKEN) if scope == "run" else begin("ro", "read", "another")
    answer = visitor.ask("POST", "/rq/job/x/delete", {**bearing(session), **headers})
    assert (answer.status_code, code in answer.text) == (403, True)
    assert visitor.ask("DELETE", "/rq/job/x/delete", {**bearing(session), **headers}).status_code == 405
    assert visitor.ask("POST", "/rq/job/x/delete", headers).status_code in (303, 403)


def test_what_is_pickled_is_never_loaded(stack: Stack, tmp_path: Path) -> None:
    """A page of rq-dashboard would run it; here it is shown as no JSON, also with its worker, and stays as it was."""
    mark = tmp_path / "mark"
    evil = pickle.dumps(Opens(mark))
    stack.set(dashboard_write=True)
    stack.web()
    person = Person(stack)
    person.sign_in()
    job = failed(stack)
    stack.redis.hset(job.key, mapping={"meta": evil, "data": evil, "result": base64.b64encode(evil)})
    stack.redis.xadd(f"rq:results:{job.id}", {"type": 1, "created_at": 1, "return_value": base64.b64encode(evil)})
    worker = Worker([QUEUE], connection=stack.redis, name="theirs")
    worker.register_birth()  # type: ignore[no-untyped-call]
    with stack.redis.pipeline() as pipeline:
        worker.prepare_execution(job)
        pipeline.execute()
    jobs = f"0/data/jobs/{QUEUE}/failed/8/asc/1.json"
    texts = [person.get(f"/rq/{path}").raise_for_status().text for path in (jobs, "0/data/workers.json")]
    texts += [
        person.get(f"/rq/0/{form}").raise_for_status().text
        for form in (f"data/job/{job.id}.json", f"view/job/{job.id}")
    ]
    assert all(job.id in text for text in texts)
    assert "(not JSON)" in texts[1]
    assert "(not JSON)" in texts[2]
    assert json.loads(person.send("POST", f"/rq/requeue/{QUEUE}", headers=SCRIPT).text) == {"status": "OK", "count": 1}
    assert stack.redis.lrange(rq_names.queue(QUEUE), 0, -1) == [job.id.encode()]
    assert stack.redis.hget(job.key, "meta") == evil
    assert person.send("POST", f"/rq/job/{job.id}/delete", headers=SCRIPT).json() == {"status": "OK"}
    assert not stack.redis.exists(job.key)
    assert not mark.exists()


def test_markup_of_a_job_does_not_arrive(web: Stack, person: Person) -> None:
    """Its templates would put it into the page as it is."""
    job = failed(web)
    web.redis.hset(job.key, "description", "<script>alert(1)</script>")
    for path in (f"jobs/{QUEUE}/failed/8/asc/1", f"job/{job.id}"):
        answer = person.get(f"/rq/0/data/{path}.json")
        assert "<" not in answer.text
        assert "\u2039script>alert(1)" in json.dumps(answer.json(), ensure_ascii=False)


@pytest.mark.parametrize("path", ["", "/0/view/jobs", "/0/data/queues.json", "/static/js/jquery-3.5.1.min.js"])
def test_each_answer_has_a_policy(person: Person, path: str) -> None:
    """Scripts only from this host or with the hash of the one in the page; nothing from elsewhere."""
    answer = person.get(f"/rq{path}").raise_for_status()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'unsafe-eval'")
    assert "unsafe-inline" not in policy
    assert ("sha256-" in policy) == ("html" in answer.headers["content-type"])
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_is_not_there_is_told_plainly(person: Person) -> None:
    """A job that has expired is a 404; a file that the browser has is a 304."""
    assert person.get("/rq/0/view/job/none").status_code == 404
    etag = person.get("/rq/static/css/main.css").headers["etag"]
    assert person.send("GET", "/rq/static/css/main.css", headers={"If-None-Match": etag}).status_code == 304


def test_an_idle_process_has_not_loaded_it(web: Stack) -> None:
    """Flask comes with the first request for /rq."""
    check = "import sys; from service.app import create_app; create_app(); sys.exit('flask' in sys.modules)"
    command = [sys.executable, "-c", check]
    assert subprocess.run(command, cwd=ROOT, env=web.environ, check=False, timeout=60).returncode == 0


def test_when_redis_is_away_it_says_so(stack: Stack) -> None:
    """As the page does."""
    stack.environ["REDIS_URL"] = "redis://127.0.0.1:1"
    stack.web()
    answer = stack.client.get("/rq/0/data/queues.json")
    assert (answer.status_code, "Redis is not available" in answer.text) == (503, True)
