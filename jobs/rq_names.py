"""RQ's names as its own classes make them (`RQ_KEY_PREFIX` included), for scripts that enqueue without RQ."""

import time

from redis import Redis
from rq.command import PUBSUB_CHANNEL_TEMPLATE, send_shutdown_command
from rq.defaults import RQ_KEY_PREFIX

JOB = f"{RQ_KEY_PREFIX}:job:"
WORKER = f"{RQ_KEY_PREFIX}:worker:"
QUEUES = f"{RQ_KEY_PREFIX}:queues"
WALK = "jobs.rq_jobs.walk"
FOLLOW_UP = "jobs.rq_jobs.follow_up"
OF_QUEUES = {"wip", "finished", "failed", "deferred", "ready", "scheduled", "canceled", "workers", "clean_registries"}
OF_JOBS = {"job", "results", "executions", "execution"}
STOP_SECONDS = 15


def queue(name: str) -> str:
    """The list a queue's job ids wait in."""
    return f"{RQ_KEY_PREFIX}:queue:{name}"


def _with(redis: Redis, kind: str, field: str, value: str) -> set[str]:
    """The jobs or workers whose hash has this value in this field."""
    prefix = f"{RQ_KEY_PREFIX}:{kind}:"
    found = redis.scan_iter(f"{prefix}*", count=1000, _type="HASH")
    return {key[len(prefix) :].decode() for key in found if redis.hget(key, field) == value.encode()}


def remove(redis: Redis, name: str) -> None:
    """Stop the workers that listen to this queue alone; delete what RQ keeps of them, of the queue and of its jobs."""
    workers = _with(redis, "worker", "queues", name)
    for worker in workers:
        send_shutdown_command(redis, worker)
    channels, deadline = [PUBSUB_CHANNEL_TEMPLATE % worker for worker in workers], time.monotonic() + STOP_SECONDS
    while any(listening for _, listening in redis.pubsub_numsub(*channels)) and time.monotonic() < deadline:
        time.sleep(0.1)
    jobs = _with(redis, "job", "origin", name)
    for key in redis.scan_iter(f"{RQ_KEY_PREFIX}:*", count=1000):
        kind, _, rest = key.decode(errors="replace").removeprefix(f"{RQ_KEY_PREFIX}:").partition(":")
        if (
            (kind in OF_QUEUES | {"queue"} and (rest == name or rest.startswith(f"{name}:intermediate")))
            or (kind in OF_JOBS and rest.strip(":").split(":")[0] in jobs)
            or (kind == "worker" and rest.removesuffix(":executions") in workers)
        ):
            redis.delete(key)
    redis.srem(QUEUES, queue(name))
    redis.srem(f"{RQ_KEY_PREFIX}:workers", "", *(f"{RQ_KEY_PREFIX}:worker:{worker}" for worker in workers))
