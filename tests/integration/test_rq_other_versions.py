"""A rolling deployment: workers of two versions on one queue, and jobs that only one of them knows."""

import json
from typing import Any

import pytest
from rq.registry import FailedJobRegistry

from jobs import keys, rq_names
from jobs.rq_jobs import AllowedJob
from tests.integration.horses import begin
from tests.integration.processes import until
from tests.integration.stack import Stack
from tests.integration.test_rq_foreign_jobs import QUEUE, WALK, Fields, put
from wordpress.demo_network import DemoNetwork

WAITS = "a job of another version waits"
NEWER: dict[str, list[Any]] = {
    "new-function": ["jobs.rq_jobs.something_new", None, ["a", 1], {"b": 2}],
    "no-argument": ["jobs.rq_jobs.walk", None, [], {}],
    "more-arguments": ["jobs.rq_jobs.walk", None, [*WALK[2], 2], {}],
    "other-type": ["jobs.rq_jobs.follow_up", None, [{"run": "x"}], {}],
    "keywords": [*WALK[:3], {"because": "x"}],
}
LONG_AGO = "2020-01-01T00:00:00.000000Z"


def failed(stack: Stack) -> list[str]:
    """The jobs that were refused or failed."""
    return FailedJobRegistry("all-sites-cron", connection=stack.redis, job_class=AllowedJob).get_job_ids()


def test_jobs_of_another_version_are_put_back_behind_the_others(stack: Stack, network: DemoNetwork) -> None:
    """They are not failed, nor in the way of the run behind them; when their time comes they are tried once more."""
    for job, data in NEWER.items():
        put(stack, job, {"data": json.dumps(data)})
    stack.web()
    run_id = begin(stack)
    stack.worker()
    assert stack.ended(run_id).status == "succeeded"
    assert stack.redis.zcard(keys.LATER) == len(NEWER)
    assert failed(stack) == []
    assert stack.redis.lrange(f"{QUEUE}:intermediate", 0, -1) == []
    assert stack.log("worker").count(WAITS) == len(NEWER), "it does not spin"
    stack.redis.zadd(keys.LATER, {"new-function": 0})
    until(lambda: stack.log("worker").count(WAITS) == len(NEWER) + 1)
    assert stack.redis.hget(rq_names.JOB + "new-function", "status") == b"queued"


@pytest.mark.parametrize("dated", [LONG_AGO, "2999-01-01T00:00:00.000000Z"])
def test_a_job_that_no_worker_knows_for_long_is_refused(stack: Stack, network: DemoNetwork, dated: str) -> None:
    """After ten minutes it is a foreign job like any other; nor does a date in the future let it wait for ever."""
    for job, data in NEWER.items():
        put(stack, job, {"data": json.dumps(data), "created_at": dated})
    worker = stack.worker()
    until(lambda: sorted(failed(stack)) == sorted(NEWER), 20)
    assert stack.redis.zcard(keys.LATER) == 0
    assert worker.poll() is None


def test_a_job_without_a_date_grows_old_all_the_same(stack: Stack, network: DemoNetwork) -> None:
    """It is given one when it is put back."""
    undated: Fields = {"data": json.dumps(NEWER["new-function"]), "status": "queued", "origin": "all-sites-cron"}
    stack.redis.hset(rq_names.JOB + "undated", mapping=undated)
    stack.redis.rpush(QUEUE, "undated")
    stack.worker()
    until(lambda: WAITS in stack.log("worker"))
    until(lambda: bool(stack.redis.zcard(keys.LATER)))
    assert stack.redis.hget(rq_names.JOB + "undated", "created_at")
