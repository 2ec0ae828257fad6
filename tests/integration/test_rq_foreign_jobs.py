"""Whoever can write to Redis must not run code here: foreign jobs are refused, reported, and end nobody.

Each is written as an attacker or a mistake would: straight into RQ's hashes and list.
"""

import json
import pickle
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from rq.command import send_stop_job_command
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from jobs import rq_names
from jobs.admission import rq_now
from jobs.rq_jobs import AllowedJob
from tests.integration.horses import begin, late_sites, running, until_called
from tests.integration.processes import until
from tests.integration.stack import ROOT, Stack
from wordpress.demo_network import DemoNetwork

QUEUE = rq_names.queue("all-sites-cron")

Fields = dict[Any, Any]  # of a job's hash: what redis-py takes


@pytest.fixture
def mark(stack: Stack, tmp_path: Path) -> Path:
    """A file that only code of a foreign job would make; `marks.leave` is importable in the worker and makes it."""
    mark = tmp_path / "mark"
    (tmp_path / "marks.py").write_text(f"def leave(*_):\n    open({str(mark)!r}, 'w').close()\n")
    stack.environ["PYTHONPATH"] = f"{tmp_path}:{stack.environ.get('PYTHONPATH', '')}"
    return mark


@pytest.fixture
def hook() -> Iterator[tuple[str, list[str]]]:
    """The address of a loopback server, and the requests it had."""
    requests: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", requests
        server.shutdown()
        thread.join()


def put(stack: Stack, job: str, fields: Fields) -> None:
    """Put a job with these fields into the queue."""
    written: Fields = {"created_at": rq_now(), "enqueued_at": rq_now(), "origin": "all-sites-cron", "status": "queued"}
    stack.redis.hset(rq_names.JOB + job, mapping={**written, "timeout": 60, **fields})
    stack.redis.rpush(QUEUE, job)


def queued(stack: Stack) -> list[str]:
    """The jobs that wait in the queue."""
    return [job.decode() for job in stack.redis.lrange(QUEUE, 0, -1) if isinstance(job, bytes)]


class Opens:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


WALK: list[Any] = ["jobs.rq_jobs.walk", None, ["0123456789abcdef"], {}]


def foreign(mark: Path) -> dict[str, Fields]:
    """Job id → the fields of a job that is not this project's."""
    leave: list[Any] = ["marks.leave", None, [], {}]
    touch: list[Any] = ["os.system", None, [f"touch {mark}"], {}]
    return {
        "pickle": {"data": pickle.dumps(("os.system", None, (f"touch {mark}",), {}))},
        "bomb": {"data": pickle.dumps(Opens(mark))},
        "bytes": {"data": b"\x00\xff" * 50},
        "no-list": {"data": '{"a": 1}'},
        "short-list": {"data": '["jobs.rq_jobs.walk"]'},
        "system": {"data": json.dumps(touch)},
        "import": {"data": json.dumps(leave)},
        "number-as-name": {"data": "[1, null, [], {}]"},
        "instance": {"data": json.dumps(["jobs.rq_jobs.walk", "marks", ["x"], {}])},
        "method": {"data": json.dumps(["leave", "marks", [], {}])},
        "no-run": {"data": json.dumps(["jobs.rq_jobs.walk", None, ["0123456789abcdef:failed"], {}])},
        "prune": {"data": json.dumps(["jobs.rq_jobs.walk", None, ["prune"], {}])},
        "no-follow-up": {"data": json.dumps(["jobs.rq_jobs.follow_up", None, ["../prune"], {}])},
        "long-follow-up": {"data": json.dumps(["jobs.rq_jobs.follow_up", None, ["0123456789abcdef0"], {}])},
        "below": {"data": json.dumps(["jobs.rq_jobs.os.system", None, [f"touch {mark}"], {}])},
        "beside": {"data": json.dumps(["jobs_rq_jobs.walk", None, WALK[2], {}])},
        "meta": {"data": json.dumps(touch), "meta": pickle.dumps(Opens(mark))},
        "callbacks": {"data": json.dumps(touch), "failure_callback_name": "marks.leave", "retries_left": 3},
        "repeat": {"data": json.dumps(leave), "repeats_left": 5, "repeat_intervals": "[1]"},
    }


def broken(stack: Stack) -> list[str]:
    """Put ids into the queue behind which there is no job at all, nor anything that RQ can read as one."""
    hashes: dict[str, Fields] = {
        "blue": {"colour": "blue"},
        "no-data": {"created_at": rq_now(), "status": "queued"},
        "undated": {"created_at": "yesterday"},
        "statusless": {"created_at": rq_now(), "data": "[]", "status": "purple"},
        "timeless": {"created_at": rq_now(), "data": "[]", "timeout": "soon"},
        "binary": {"created_at": rq_now(), "data": "[]", "description": b"\xff", "origin": b"\xff"},
    }
    for job, fields in hashes.items():
        stack.redis.hset(rq_names.JOB + job, mapping=fields)
    stack.redis.set(rq_names.JOB + "text", "no hash")
    stack.redis.rpush(QUEUE, *hashes, "text", "no-hash", "", b"\xff\xfe")
    stack.redis.rpush(f"{QUEUE}:intermediate", b"\xfd")  # left by a worker that died
    return [*hashes, "text"]


def test_foreign_jobs_run_nothing_and_end_nobody(stack: Stack, network: DemoNetwork, mark: Path) -> None:
    """Pickles, bytes, other functions, wrong arguments: refused and in the log, and the run behind them ends well."""
    jobs = foreign(mark)
    for job, fields in jobs.items():
        put(stack, job, fields)
    put(stack, "fine", {"data": json.dumps(["jobs.rq_jobs.follow_up", None, ["prune"], {}])})
    stack.web()
    run_id = begin(stack)
    worker = stack.worker()
    assert stack.ended(run_id).status == "succeeded"
    assert network.stats()["ran_sites"] == 120
    assert worker.poll() is None
    assert not mark.exists()
    failed = FailedJobRegistry("all-sites-cron", connection=stack.redis, job_class=AllowedJob)
    until(lambda: failed.count == len(jobs))
    log = stack.log("worker")
    assert [job for job in jobs if f'"job": "{job}"' not in log and f"job {job}: exception" not in log] == []
    assert [job for job in jobs if stack.redis.ttl(rq_names.JOB + job) == -1] == [], "refused, and kept for ever"


def test_what_is_no_job_ends_nobody(stack: Stack, network: DemoNetwork) -> None:
    """Hashes that are none of a job, and ids without one: passed over, also by the maintenance that comes later."""
    jobs = broken(stack)
    stack.web()
    run_id = begin(stack)
    worker = stack.worker()
    assert stack.ended(run_id).status == "succeeded"
    until(lambda: stack.redis.llen(f"{QUEUE}:intermediate") == 0, 20)
    assert worker.poll() is None
    log = stack.log("worker")
    assert [job for job in jobs if f'"job": "{job}"' not in log] == []
    assert "its id is no text" in log
    assert "xfd" in log


def test_no_callback_and_no_webhook_of_a_job_is_obeyed(
    stack: Stack, network: DemoNetwork, mark: Path, hook: tuple[str, list[str]]
) -> None:
    """A walk that somebody gave callbacks and webhooks is walked; neither its end nor a failure calls or sends any."""
    url, requests = hook
    extras: Fields = {
        **{f"{when}_callback_name": "marks.leave" for when in ("success", "failure", "stopped")},
        "webhooks": json.dumps([{"url": url + status, "job_status": status} for status in ("finished", "failed")]),
    }
    walk = json.dumps(["jobs.rq_jobs.walk", None, ["0123456789abcdef"], {}])
    put(stack, "good", {"data": walk, **extras})
    put(stack, "bad", {"data": '["os.system", null, ["true"], {}]', **extras})
    stack.web()
    run_id = begin(stack)
    stack.redis.hset(rq_names.JOB + queued(stack)[-1], mapping=extras)
    stack.worker()
    assert stack.ended(run_id).status == "succeeded"
    until(lambda: stack.log("worker").count("Job OK") == 2)
    assert FailedJobRegistry("all-sites-cron", connection=stack.redis, job_class=AllowedJob).get_job_ids() == ["bad"]
    assert not mark.exists()
    assert requests == []


def test_a_job_that_is_stopped_calls_nothing_and_its_run_goes_on(stack: Stack, mark: Path) -> None:
    """RQ's stop command ends the horse: its on_stopped callback is not called, and the spare job walks the rest."""
    with running(late_sites(200, latency_ms=50)) as network:
        stack.use(network)
        stack.set(lock_timeout=2, concurrency=10)
        stack.web()
        run_id = begin(stack)
        (job,) = queued(stack)
        stack.redis.hset(rq_names.JOB + job, "stopped_callback_name", "marks.leave")
        worker = stack.worker()
        until_called(network, 20)
        send_stop_job_command(stack.redis, job, serializer=JSONSerializer)
        assert stack.ended(run_id).status == "succeeded"
        assert network.stats()["ran_sites"] == 200
        assert "stopped by user" in stack.log("worker")
        assert worker.poll() is None
        assert not mark.exists()


def test_a_worker_for_another_queue_refuses_to_start(stack: Stack) -> None:
    """Its text names the queue it was given, the one it must have, and the setting."""
    procfile = (ROOT / "Procfile").read_text()
    line = next(line for line in procfile.splitlines() if line.startswith("worker: "))
    queue = "${ALL_SITES_CRON_REDIS_QUEUE_KEY:-${DSS_CRON_REDIS_QUEUE_KEY:-all-sites-cron}}"
    assert line.endswith(" " + queue)
    worker = stack.start("stranger", command=line.removeprefix("worker: ").replace(queue, "high low"))
    assert worker.wait(20) != 0
    assert (
        "This worker listens to high, low; it must listen to exactly one queue, 'all-sites-cron' "
        "(ALL_SITES_CRON_REDIS_QUEUE_KEY)" in stack.log("stranger")
    )
