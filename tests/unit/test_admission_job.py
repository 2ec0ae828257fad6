"""The walker job that admission writes: what RQ itself would have written."""

from collections.abc import Callable

import pytest
from rq import Queue, Retry
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from jobs import rq_names
from jobs.errors import AlreadyRunning
from jobs.rq_jobs import AllowedJob, AllowedQueue
from tests.unit.fakes import Cron, pairs

QUEUE = "rq:queue:all-sites-cron"
MakeCron = Callable[..., Cron]


def test_exactly_one_job_is_enqueued_at_admission(cron: Cron) -> None:
    """Never one per site or batch, and none for those who join."""
    for _ in range(5):
        cron.trigger()
    assert len(cron.jobs()) == 1
    assert len(list(cron.redis.scan_iter("rq:job:*"))) == 1
    assert cron.redis.smembers("rq:queues") == {QUEUE.encode()}


def test_the_job_is_one_that_rq_would_have_written(cron: Cron) -> None:
    """Field by field as Queue.enqueue of this project's classes writes it, but for the data's compression."""
    run_id = cron.trigger().run_id
    (ours_id,) = cron.jobs()
    queue = AllowedQueue("all-sites-cron", connection=cron.redis, serializer=JSONSerializer)
    enqueued = queue.enqueue(
        rq_names.WALK,
        run_id,
        job_timeout=-1,
        result_ttl=60,
        failure_ttl=3600,
        retry=Retry(max=3),
        description=f"Walk run {run_id}",
    )
    ours, theirs = (
        AllowedJob.fetch(job, connection=cron.redis, serializer=JSONSerializer) for job in (ours_id, enqueued.id)
    )
    for name in ("func_name", "args", "kwargs", "instance", "origin", "timeout", "result_ttl", "failure_ttl"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("retries_left", "description", "group_id", "dependency_ids", "meta", "ttl"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_status() == theirs.get_status() == JobStatus.QUEUED
    assert ours.created_at
    assert ours.enqueued_at
    assert theirs.enqueued_at
    assert abs((ours.enqueued_at - theirs.enqueued_at).total_seconds()) < 60
    stored = {name.decode(): value for name, value in cron.redis.hgetall(theirs.key).items()}
    written = {name.decode() for name in cron.redis.hgetall(ours.key)}
    assert written - set(stored) == set(), "no field that RQ does not know"
    unwritten = {name for name in set(stored) - written if stored[name]}
    assert unwritten <= {"retry_intervals"}, "without it, RQ tries again at once"


def test_rq_takes_the_job_from_the_queue(cron: Cron) -> None:
    """The queue's own dequeue finds it, in the order of admission."""
    cron.trigger()
    queue = AllowedQueue("all-sites-cron", connection=cron.redis, serializer=JSONSerializer)
    taken = Queue.dequeue_any([queue], None, connection=cron.redis, job_class=AllowedJob, serializer=JSONSerializer)
    assert taken is not None
    assert isinstance(taken[0], Job)
    assert cron.jobs() == []


def test_without_the_queue_no_job_is_written(make_cron: MakeCron) -> None:
    """USE_REDIS_QUEUE=false: the process that admitted walks; Redis has the lock and the record alone."""
    cron = make_cron(use_redis_queue="false")
    here = cron.trigger("here")
    assert cron.start(here.run_id, here.walker) == "walk"
    cron.list_pages(here.run_id, here.walker, [pairs(3)])
    cron.expire_leases(here.run_id, here.walker)
    with pytest.raises(AlreadyRunning) as caught:
        cron.trigger()
    assert caught.value.orphaned
    assert not list(cron.redis.scan_iter("rq:*"))


def test_the_queue_has_the_name_of_the_setting(make_cron: MakeCron) -> None:
    """Web process and worker read it once, at their start."""
    cron = make_cron(redis_queue_key="cron:blogs")
    cron.trigger()
    assert cron.redis.llen("rq:queue:cron:blogs") == 1
