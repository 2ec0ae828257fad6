"""A run is never lost: whatever became of its job or its walker, somebody takes it up, and nobody has to help."""

import json
from threading import Thread

import httpx
import pytest

from jobs import keys, rq_names, scripts
from jobs.admission import Trigger, request
from jobs.world import build
from tests.integration.horses import begin, kill, late_sites, running, until_called
from tests.integration.processes import until
from tests.integration.stack import Stack, environ_of
from wordpress.demo_network import DemoNetwork

QUEUE = rq_names.queue("all-sites-cron")


def queued_without_a_job(stack: Stack) -> str:
    """Admit a run and lose its job before any worker can take it."""
    world = build(environ_of(stack))
    arguments, _ = request(Trigger("defer", "redis", "test", 60))
    transaction = stack.redis.pipeline(transaction=True)
    transaction.eval(scripts.text("admit", world.settings), 0, arguments)
    transaction.delete(QUEUE, rq_names.JOB + json.loads(arguments)["job"])
    (what, run_id, _), _ = transaction.execute()
    world.redis.close()
    assert what == b"queued"
    return str(run_id.decode())


@pytest.mark.parametrize("idle", [True, False], ids=["an idle worker", "a worker that starts"])
def test_a_queued_run_whose_job_is_gone_is_found(stack: Stack, network: DemoNetwork, idle: bool) -> None:
    """A worker finds it within seconds, whether it listens already or starts later."""
    if idle:
        stack.worker()
    run_id = queued_without_a_job(stack)
    if not idle:
        stack.worker()
    assert stack.ended(run_id, 15).status == "succeeded"
    assert network.stats()["ran_sites"] == 120
    assert "a run that nobody walked was queued again" in stack.log("worker")


def test_a_trigger_that_joins_a_run_whose_job_is_gone_queues_it_again(stack: Stack, network: DemoNetwork) -> None:
    """The caller joins the lost run, and it has a job again."""
    run_id = queued_without_a_job(stack)
    stack.set(rate_limit_seconds=0)
    stack.web()
    until(lambda: stack.redis.llen(QUEUE) == 1)  # the web process sweeps as it starts
    stack.redis.delete(QUEUE)
    stack.redis.delete(*stack.redis.scan_iter(f"{rq_names.JOB}*"))
    assert begin(stack) == run_id
    assert stack.redis.llen(QUEUE) == 1


def test_a_run_left_by_a_dead_web_process_is_taken_up_by_a_worker(stack: Stack) -> None:
    """SIGKILL of a web process in the middle of a sync run: a worker started later walks the rest."""
    with running(late_sites(200)) as network:
        stack.use(network)
        stack.set(concurrency=10, batch_size=10, lock_timeout=2)
        web = stack.web()
        broken: list[httpx.TransportError] = []

        def call() -> None:
            try:
                stack.trigger()
            except httpx.TransportError as error:
                broken.append(error)

        caller = Thread(target=call)
        caller.start()
        until_called(network, 30)
        kill(web.pid)
        caller.join()
        assert broken
        stack.worker()
        run_id = stack.redis.get(keys.ACTIVE)
        assert isinstance(run_id, bytes)
        run = stack.ended(run_id.decode())
        assert (run.status, run.mode, run.count) == ("succeeded", "sync", 200)
        assert network.stats()["ran_sites"] == 200
        assert stack.redis.exists(keys.LOCK, keys.ACTIVE) == 0
