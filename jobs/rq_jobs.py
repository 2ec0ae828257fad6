"""RQ's side: the two job functions, the classes `rq worker` is started with, and nothing else knows of RQ.

rq worker --worker-class jobs.rq_jobs.ServiceWorker --connection-class jobs.rq_jobs.Connection all-sites-cron
"""

import contextlib
import ctypes
import os
import re
import signal
import sys
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from redis import Redis
from redis import exceptions as redis_errors
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from rq import Queue, Worker
from rq.exceptions import DeserializationError, NoSuchJobError, TimeoutFormatError
from rq.job import Job, get_current_job
from rq.serializers import JSONSerializer

from jobs import keys, rq_names, verifier
from jobs.admission import RUN_ID, fresh_job, rq_now
from jobs.errors import AllSitesCronError, SettingsError
from jobs.log import configure
from jobs.redis_connection import options, unavailable
from jobs.scripts import Scripts
from jobs.settings import load
from jobs.world import World, build

# What RQ raises for a hash that is not a job's.
NO_JOB = (NoSuchJobError, TimeoutFormatError, AssertionError, AttributeError, KeyError, TypeError, ValueError)
REFUSED_TTL = 600  # seconds a refused job stays in the failed registry
ARGUMENTS = {rq_names.WALK: RUN_ID, rq_names.FOLLOW_UP: f"{RUN_ID}|{verifier.PRUNE}"}  # what each takes
OTHER_VERSION = "this version of the project does not know it"
PATIENCE, LATER_SECONDS = timedelta(minutes=10), 10  # how long a job waits for a worker of its version, how often tried
WORKER_TTL, MAINTENANCE_SECONDS, MONITORING_SECONDS = 18, 3, 3
HEARTBEAT_GRACE = 7  # a killed worker's job is back after some 9 s

log = structlog.get_logger("all_sites_cron.worker")
_worker: ContextVar["ServiceWorker"] = ContextVar("worker")


class ForeignJob(AllSitesCronError):
    """A job in the queue that is not this project's; it is refused, whatever its callbacks say."""


def walk(run_id: str) -> str:
    """The job: walk a run. Returns its status as this walker last saw it."""
    job = get_current_job()
    if job is None:
        raise RuntimeError("walk runs as an RQ job; use `all-sites-cron run` to walk in this process")
    worker = _worker.get()
    return worker.world.walk(run_id, job.id, stop=worker.stopping, again=True)


def follow_up(name: str) -> None:
    """The job: what follows ended runs, see jobs.verifier.follow_up."""
    worker = _worker.get()
    verifier.follow_up(worker.world, name, stop=worker.stopping)


class AllowedJob(Job):
    """A job that runs only what this project put into the queue: whoever can write to Redis must not run os.system."""

    def refresh(self) -> None:
        """As RQ does; what is no job's hash at all counts as no job, else it would end every worker."""
        try:
            super().refresh()  # type: ignore[no-untyped-call]
        except (*NO_JOB, redis_errors.ResponseError) as error:
            if self.connection.exists(self.key):
                log.warning("a foreign job was refused", job=self.id, reason=repr(error)[:200])
            raise NoSuchJobError from error

    def restore(self, raw_data: Any) -> Any:
        """As RQ does, less the callbacks and webhooks: this project's jobs have none."""
        super().restore(raw_data)
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks = []
        if self.foreign():
            self.failure_ttl, self.retries_left, self.repeats_left = REFUSED_TTL, None, None

    def perform(self) -> Any:
        """Run the job, or raise ForeignJob."""
        if reason := self.foreign():
            log.error("a foreign job was refused", job=self.id, reason=reason)
            raise ForeignJob(f"refused: {reason}")
        return super().perform()

    def foreign(self) -> str | None:
        """Why this job is not one of this project's; None if it is."""
        try:
            name, instance, args, kwargs = self.func_name, self.instance, self.args, self.kwargs
        except (DeserializationError, ValueError, TypeError):
            return "its data is not this project's JSON"
        if instance is not None or not re.fullmatch(rf"{re.escape(__name__)}\.\w+", str(name)):
            return f"the function {str(name)[:100]!r} is not one of this project's"
        match args:
            case [str(text)] if name in ARGUMENTS and not kwargs:
                return None if re.fullmatch(ARGUMENTS[name], text) else f"its argument is {text[:100]!r}, no run's id"
        return OTHER_VERSION

    def may_wait(self) -> bool:
        """Whether another version of this project may know the job, as in a rolling deployment, and it is young."""
        return self.foreign() == OTHER_VERSION and abs(datetime.now(UTC) - self.created_at) < PATIENCE


class AllowedQueue(Queue):
    """A queue of AllowedJobs; what may be another version's is put aside, for a sweep to queue it again."""

    job_class = AllowedJob

    @classmethod
    def dequeue_any(cls, *args: Any, **more: Any) -> Any:
        """As RQ does; neither failing nor running what another worker may know."""
        while (found := super().dequeue_any(*args, **more)) and found[0].may_wait():  # type: ignore[attr-defined]
            job, queue = found
            log.warning("a job of another version waits for a worker that knows it", job=job.id, function=job.func_name)
            pipeline = queue.connection.pipeline()
            pipeline.hsetnx(job.key, "created_at", rq_now())  # else it would never grow old
            pipeline.zadd(keys.LATER, {job.id: (queue.connection.time()[0] + LATER_SECONDS) * 1000})
            pipeline.expire(keys.LATER, PATIENCE)
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            pipeline.execute()
        return found

    @classmethod
    def lmove(cls, connection: Redis, queue_key: str, timeout: int | None) -> Any:
        """As RQ does; an id that is no text would end every worker, and is dropped."""
        found = super().lmove(connection, queue_key, timeout)
        if found and _no_text(found[1]):
            drop(connection, f"{queue_key}:intermediate")
            return queue_key, b""  # which is passed over, as there is no such job
        return found


def _no_text(job: bytes) -> bool:
    try:
        return not job.decode()
    except UnicodeDecodeError:
        return True


def drop(connection: Redis, key: str) -> None:
    """Take the job ids that are no text out of a list."""
    for job in connection.lrange(key, 0, -1):
        if isinstance(job, bytes) and _no_text(job):
            connection.lrem(key, 0, job)  # type: ignore[arg-type]
            log.warning("a foreign job was refused", job=repr(job)[:100], reason="its id is no text")


class Patience(Retry):
    """Asks again as long as Redis cannot serve and nobody tells the worker to stop; RQ's worker ends on such errors."""

    def call_with_retry(self, do: Any, fail: Any, is_retryable: Any = None, with_failure_count: bool = False) -> Any:
        """As redis-py does."""
        return super().call_with_retry(do, fail, _worth_waiting, with_failure_count)


def _worth_waiting(error: Any) -> bool:
    worker = _worker.get(None)
    if worth := unavailable(error) and not (worker and worker.stopping()):
        log.warning("Redis cannot be asked; it will be asked again", error=str(error))
    return worth


class Connection(Redis):
    """RQ's connection with this project's TLS settings and bounds; `rq worker` gives it REDIS_URL."""

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> "Connection":
        """As redis-py does, with the options of the settings."""
        settings = load({**os.environ, "REDIS_URL": url}).settings
        patience = Patience(ExponentialBackoff(cap=2, base=0.25), -1, (redis_errors.RedisError,))
        return super().from_url(url, **{**options(settings), "retry": patience, **kwargs})  # type: ignore[return-value]


class ServiceWorker(Worker):
    """RQ's worker with a horse that drains on SIGTERM, short heartbeats, and the sweep at each of them."""

    job_class = AllowedJob
    queue_class = AllowedQueue

    def __init__(self, queues: Any, *args: Any, **kwargs: Any) -> None:
        self.world: World = build(os.environ)
        configure(self.world.settings.log_level)
        for warning in self.world.loaded.warnings:
            log.warning(warning)
        names = [queue if isinstance(queue, str) else queue.name for queue in queues]
        expected = self.world.settings.redis_queue_key
        if names != [expected]:
            raise SettingsError(
                f"This worker listens to {', '.join(names)}; it must listen to exactly one queue, {expected!r} "
                "(ALL_SITES_CRON_REDIS_QUEUE_KEY): RQ hands a job over safely only then."
            )
        self._told_to_stop, self._legacy = False, self.world.loaded.legacy  # the latter until it is counted
        kwargs |= {
            "serializer": JSONSerializer,
            "job_class": AllowedJob,
            "queue_class": AllowedQueue,
            "worker_ttl": WORKER_TTL,
            "default_worker_ttl": None,
            "maintenance_interval": MAINTENANCE_SECONDS,
            "job_monitoring_interval": MONITORING_SECONDS,
        }
        super().__init__(names, *args, **kwargs)
        self._scripts = Scripts(self.connection, self.world.settings)
        _worker.set(self)
        self.world.new_engine(self.world.settings).close()  # what libcurl does once is then done for every horse

    def stopping(self) -> bool:
        """Whether this process was told to stop; read by the walk in the horse."""
        return self._told_to_stop

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds until a job whose worker went silent is given to another."""
        return int(self.job_monitoring_interval) + HEARTBEAT_GRACE

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """As RQ does; the parent process also says it is there and looks after the active run."""
        super().heartbeat(timeout, pipeline=pipeline)
        if not self.is_horse:
            what, run_id, _ = self._scripts.sweep(worker=self.name, legacy=self._legacy, **fresh_job())
            self._legacy = ()
            if what == "enqueued":
                log.warning("a run that nobody walked was queued again", run_id=run_id)

    def run_maintenance_tasks(self) -> None:
        """As RQ does; an id that is no text, left by a worker that died just then, is dropped, not the end."""
        drop(self.connection, self.queues[0].intermediate_queue_key)
        with contextlib.suppress(UnicodeDecodeError):  # one that came since: dropped by whoever took it
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def register_death(self) -> None:
        """As RQ does, and no longer counted among the workers that listen."""
        super().register_death()  # type: ignore[no-untyped-call]
        self.connection.zrem(keys.WORKERS, self.name)

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: Any) -> None:
        """The next walker counts this crash at once, not only when the dead one's lease runs out."""
        if isinstance(job, AllowedJob) and not job.foreign():
            self.connection.zadd(keys.walkers(job.args[0]), {job.id: 0}, xx=True)

    def handle_warm_shutdown_request(self) -> None:
        """SIGTERM to this process alone (systemd's KillMode=mixed) must reach the walk, too."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        self._told_to_stop = True
        self._tell_horse()

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """As RQ does; a stop that was asked for just before is passed on."""
        super().fork_work_horse(job, queue)
        if self._stop_requested:
            self._tell_horse()

    def _tell_horse(self) -> None:
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def setup_work_horse_signals(self) -> None:
        """In the horse: SIGTERM drains the walk, and comes by itself when the parent dies (Linux)."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._drain)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    def _drain(self, _signum: int, _frame: Any) -> None:
        self._told_to_stop = True
