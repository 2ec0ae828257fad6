"""RQ's names as its own classes make them (`RQ_KEY_PREFIX` included), for scripts that enqueue without RQ."""

from rq.defaults import RQ_KEY_PREFIX

JOB = f"{RQ_KEY_PREFIX}:job:"
QUEUES = f"{RQ_KEY_PREFIX}:queues"
WALK = "jobs.rq_jobs.walk"
FOLLOW_UP = "jobs.rq_jobs.follow_up"


def queue(name: str) -> str:
    """The list a queue's job ids wait in."""
    return f"{RQ_KEY_PREFIX}:queue:{name}"
