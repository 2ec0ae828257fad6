"""Another RQ application in the same Redis, with jobs in every state, which must keep every key; and what RQ has."""

from collections.abc import Mapping

from redis import Redis
from rq import Queue, Worker
from rq.executions import Execution
from rq.group import Group
from rq.job import Dependency, Job
from rq.registry import BaseRegistry, StartedJobRegistry
from rq.results import Result
from rq.timeouts import TimerDeathPenalty

REGISTRIES = [kind for kind in BaseRegistry.__subclasses__() if kind.__module__ == BaseRegistry.__module__]


def fill(redis: Redis, name: str, worker: str) -> None:
    """A queue with waiting, dependent, started, failed, … jobs, results, a worker: every kind of key RQ has for one."""
    queue = Queue(name, connection=redis)
    first = queue.enqueue("operator.add", 1, 2, job_id=f"{name.replace(':', '-')}-first", result_ttl=-1)
    queue.enqueue("operator.add", 3, 4, depends_on=Dependency(jobs=[first]))
    started = queue.enqueue("time.sleep", 9)
    with redis.pipeline() as pipeline:
        execution = Execution.create(started, ttl=600, pipeline=pipeline)
        StartedJobRegistry(queue=queue).add_execution(execution, pipeline=pipeline, ttl=600)
        pipeline.execute()
    for number, kind in enumerate(REGISTRIES):
        if kind is not StartedJobRegistry:
            redis.zadd(kind(queue=queue).key, {queue.enqueue("operator.neg", number).id: 4_000_000_000})
    Result.create(first, Result.Type.SUCCESSFUL, ttl=-1, return_value=3)
    redis.lmove(queue.key, queue.intermediate_queue_key)
    queue.intermediate_queue.set_first_seen(first.id)
    redis.set(queue.registry_cleaning_key, 1)
    listener = Worker([queue], name=worker, connection=redis)
    listener.death_penalty_class = TimerDeathPenalty
    listener.register_birth()  # type: ignore[no-untyped-call]
    redis.sadd(listener.executions_key, execution.composite_key)


def job_ids(redis: Redis, name: str) -> set[str]:
    """The ids of the jobs of a queue."""
    found = (key.decode().split(":")[-1] for key in redis.scan_iter(f"{Job.redis_job_namespace_prefix}*", _type="HASH"))
    return {job for job in found if redis.hget(Job.key_for(job), "origin") == name.encode()}


def contents(redis: Redis) -> Mapping[bytes, object]:
    """Every key of the database with its value, as Redis serialises it, and whether it expires.

    Without the lock that RQ's workers of all queues share for some seconds.
    """
    found = {}
    for key in set(redis.scan_iter(count=1000)) - {Group.REDIS_GROUP_CLEANING_KEY.encode()}:
        members = redis.smembers(key) if redis.type(key) == b"set" else redis.dump(key)  # a set has no order
        found[key] = (members, redis.ttl(key) == -1)
    return found
