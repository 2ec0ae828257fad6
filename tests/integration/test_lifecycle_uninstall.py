"""uninstall: nothing of ours is left, everything of the others is (CONTRACT section 7)."""

import pytest
from rq import Queue, Worker
from rq.job import Job

from jobs import keys, rq_names
from tests.integration.horses import begin, calls, horse, kill, late_sites, repeats, running, until_called
from tests.integration.processes import until
from tests.integration.rq_neighbour import contents, fill, job_ids
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork

OURS = "all-sites-cron"
NEIGHBOURS = ("default", "all-sites-cron-2", "all-sites-cron:high", "cron:all-sites-cron")


def neighbours(stack: Stack) -> None:
    """Other RQ applications, names that are nearly ours, and keys of no RQ."""
    redis = stack.redis
    for number, name in enumerate(NEIGHBOURS):
        fill(redis, name, f"theirs-{number}")
    Queue("default", connection=redis).enqueue("operator.neg", 1, job_id="walk-0123456789abcdef")
    shared = [Queue(name, connection=redis) for name in ("default", OURS)]
    Worker(shared, name="both", connection=redis).register_birth()  # type: ignore[no-untyped-call]
    redis.srem(f"rq:workers:{OURS}", "rq:worker:both")  # that set is ours, its other traces are not
    for key in ("all_sites_cron", "all_sites_cronx:lock", "dss_cron", "x:all_sites_cron:lock", b"\xff", "rq:job"):
        redis.set(key, 1)
    for key in ("rq:queue:all-sites-cro", "rq:other:all-sites-cron", b"rq:\xff:all-sites-cron"):
        redis.set(key, 1)
    redis.sadd("rq:queue:all-sites-cronicle", 1)


def test_on_a_shared_redis_ours_is_gone_and_theirs_untouched_key_by_key(stack: Stack, network: DemoNetwork) -> None:
    """After runs, refused jobs, legacy keys; processes still up are told to stop; a second time changes nothing."""
    neighbours(stack)
    before = contents(stack.redis)
    theirs = stack.start("theirs", command="rq worker --url $REDIS_URL --name theirs-alive elsewhere")
    until(lambda: bool(stack.redis.exists("rq:worker:theirs-alive")), 20)
    stack.web()
    worker = stack.worker()
    assert stack.ended(begin(stack)).status == "succeeded"
    fill(stack.redis, OURS, "ours-dead")
    stack.redis.mset({"dss_cron:lock": 1, "dss_cron:x:y": 1})
    stack.redis.rpush(keys.PLUGIN_JOBS, "{}")
    stack.client.get("/wp-json/all-sites-cron/v1/runs/x", headers={"Authorization": "Bearer wrong"})
    for _ in range(2):
        done = stack.command("uninstall")
        assert (done.returncode, done.stderr) == (0, "")
        assert "Uninstalled" in done.stdout
        assert worker.wait(5) == 0
        after = {key: value for key, value in contents(stack.redis).items() if b"alive" not in key}
        elsewhere = {key for key in after if b"elsewhere" in key}
        assert set(after) - elsewhere == set(before), "no key of ours, every key of theirs"
        members = {"rq:queues": b"rq:queue:elsewhere", "rq:workers": b"rq:worker:theirs-alive"}
        for name, value in before.items():
            if name.decode(errors="replace") not in members:
                assert after[name] == value, name
    assert stack.redis.smembers("rq:queues") - {b"rq:queue:elsewhere"} == before[b"rq:queues"][0]  # type: ignore[index]
    assert stack.redis.smembers("rq:workers") - {b"rq:worker:theirs-alive"} == before[b"rq:workers"][0]  # type: ignore[index]
    job = Queue("elsewhere", connection=stack.redis).enqueue("operator.add", 1, 2)
    until(lambda: job.is_finished, 20)
    assert theirs.poll() is None


def test_every_key_that_rq_has_for_a_queue_is_known(stack: Stack) -> None:
    """Each registry class of RQ, jobs, results, executions, a worker: with nobody else in it, Redis is empty."""
    fill(stack.redis, OURS, "ours")
    assert len(job_ids(stack.redis, OURS)) > 8
    rq_names.remove(stack.redis, OURS)
    assert contents(stack.redis) == {}


def test_a_queue_of_another_name_is_the_one_that_goes(stack: Stack, network: DemoNetwork) -> None:
    fill(stack.redis, OURS, "theirs")
    before = contents(stack.redis)
    stack.set(redis_queue_key="cron:blogs")
    stack.web()
    begin(stack)
    assert stack.command("uninstall").returncode == 0
    assert contents(stack.redis) == before


@pytest.mark.parametrize("how", ["deferred", "sync"])
def test_a_run_that_is_walked_is_waited_for(stack: Stack, how: str) -> None:
    """It reaches every site once; meanwhile the web process refuses, and how far it is is shown."""
    with running(late_sites(400, latency_ms=50)) as network:
        stack.use(network)
        stack.set(concurrency=10, batch_size=20)
        stack.web()
        stack.worker()
        if how == "deferred":
            begin(stack)
        else:
            stack.start("sync", command="python -m service run")
        until_called(network, 20)
        uninstall = stack.start("uninstall", command="python -m service uninstall")
        until(lambda: "of 20 batches are done" in stack.log("uninstall"), 20)
        assert calls(network) < 400
        assert stack.trigger().status_code == 503
        assert uninstall.wait(30) == 0, stack.log("uninstall")
        assert (network.stats()["ran_sites"], repeats(network)) == (400, 0)
    assert contents(stack.redis) == {}


@pytest.mark.parametrize("queue", [True, False])
def test_a_queued_run_that_nobody_walks_is_not_waited_for(stack: Stack, network: DemoNetwork, queue: bool) -> None:
    """No worker, no call: it is cancelled, and so are its traces."""
    stack.web()
    begin(stack)
    assert stack.command("uninstall", ALL_SITES_CRON_USE_REDIS_QUEUE=str(queue)).returncode == 0
    assert (contents(stack.redis), calls(network)) == ({}, 0)


def test_a_run_whose_worker_was_killed_is_finished_by_another_and_waited_for(stack: Stack) -> None:
    with running(late_sites(300, latency_ms=50)) as network:
        stack.use(network)
        stack.set(concurrency=10, lock_timeout=2)
        stack.web()
        first = stack.worker()
        begin(stack)
        until_called(network, 20)
        stack.worker()
        kill(horse(first), first.pid)
        assert stack.command("uninstall").returncode == 0
        assert network.stats()["ran_sites"] == 300
    assert contents(stack.redis) == {}


def test_a_live_lock_is_never_deleted(stack: Stack) -> None:
    """It is waited for until its time has run out."""
    stack.redis.set(keys.LOCK, "0123456789abcdef", px=4_000)
    uninstall = stack.start("uninstall", command="python -m service uninstall")
    until(lambda: "the lock to expire" in stack.log("uninstall"), 20)
    assert stack.redis.get(keys.LOCK) == b"0123456789abcdef"
    assert uninstall.poll() is None
    until(lambda: not stack.redis.exists(keys.LOCK) or uninstall.poll() is not None)
    assert stack.redis.pttl(keys.LOCK) == -2
    assert uninstall.wait(10) == 0
    assert contents(stack.redis) == {}


def test_afterwards_the_service_starts_afresh(stack: Stack, network: DemoNetwork) -> None:
    """Uninstalled is not deactivated: the next run is admitted, without a cooldown."""
    stack.web()
    assert stack.trigger().status_code == 200
    assert stack.command("uninstall").returncode == 0
    assert stack.trigger().status_code == 200
    assert Job.redis_job_namespace_prefix == rq_names.JOB
