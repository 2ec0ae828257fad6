"""What the handlers of the web process work with: Redis without blocking, and the walks in its threads."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

import structlog
from redis.exceptions import RedisError

from jobs import admission, health, keys, runs, scripts, updates, verifier
from jobs.admission import Admitted, Trigger
from jobs.errors import AlreadyRunning, RedisUnavailable, RunNotFound
from jobs.health import Health, State
from jobs.redis_connection import connect_async, unavailable
from jobs.runs import Run
from jobs.updates import Release
from jobs.world import World
from service.answers import RestError

UPDATE_SECONDS = 60.0
MOST_STREAMS = 100  # of events, of one web process
POLL_SECONDS = 0.5  # how old what a stream tells of a run may be

log = structlog.get_logger("all_sites_cron.web")


class Web:
    """`redis` is the event loop's own client; `world.redis` would block it. `stopping`: set it to drain every walk.

    `streams`: held by each caller that is sent events.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.settings = world.settings
        self.redis = connect_async(self.settings)
        self.stopping = Event()
        self.newest = Release()
        self.streams = asyncio.Semaphore(MOST_STREAMS)
        self._latest: tuple[Run, float] | None = None
        self._reading = asyncio.Lock()
        self._admit, self._sweep, self._cancel = (
            self.redis.register_script(scripts.text(name, self.settings)) for name in ("admit", "sweep", "cancel")
        )
        self._legacy = world.loaded.legacy  # until it is counted
        self._walks: set[asyncio.Task[bool]] = set()

    async def admit(self, trigger: Trigger) -> Admitted:
        """One Redis round trip decides; raises a Refused, or admission.NothingQueued."""
        arguments, walker = admission.request(trigger)
        try:
            reply = await self._admit(args=[arguments])
            admitted = admission.decide(reply, trigger, walker)
        except AlreadyRunning as refused:
            if refused.orphaned:
                self._take_up(refused.run_id)
            raise
        except RedisError as error:
            if not unavailable(error):
                raise
            log.warning("Redis cannot be asked", error=str(error))
            raise RedisUnavailable(
                "Redis is not available; unless it took this call just before, nothing was started."
            ) from error
        if admitted.what == "queued":
            self._take_up(admitted.run_id)
        return admitted

    async def run(self, run_id: str) -> Run:
        """The record of a run; raises RunNotFound."""
        if not re.fullmatch(admission.RUN_ID, run_id):  # else `ID:failed` would name another key of the run
            raise RunNotFound(f"No run {run_id[:100]!r} is known; an id is 16 hex digits.")
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.hgetall(keys.run(run_id))
        pipeline.hgetall(keys.failures(run_id))
        return runs.parse(run_id, *await pipeline.execute())

    async def latest(self, run_id: str) -> Run:
        """As `run`, but up to POLL_SECONDS old: one read serves all who watch the run that is active."""
        async with self._reading:
            if not (known := self._latest) or known[0].id != run_id or time.monotonic() - known[1] > POLL_SECONDS / 2:
                self._latest = known = await self.run(run_id), time.monotonic()
            return known[0]

    async def runs(self, first: int, count: int) -> tuple[int, list[Run]]:
        """(how many runs are kept, `count` of them from number `first` on); the newest first, without `failures`."""
        total, pipeline = await self.redis.zcard(keys.RUNS), self.redis.pipeline(transaction=False)
        found: list[Any] = await self.redis.zrevrange(keys.RUNS, first, first + count - 1)
        ids = [run_id.decode() for run_id in found]
        for run_id in ids:
            pipeline.hgetall(keys.run(run_id))
            pipeline.hlen(keys.failures(run_id))
        replies = iter(await pipeline.execute())  # of an empty pipeline: nothing is asked
        return total, [runs.parse(*read) for read in zip(ids, replies, replies, strict=True) if read[1]]

    async def cancel(self, run_id: str, by: str) -> Run:
        """Stop a run after the requests now in flight; its record, final if it was over at once.

        Raises RunNotFound, and RestError when it has ended.
        """
        await self.run(run_id)  # whose id it is
        what = (await self._cancel(args=[json.dumps({"id": run_id, "by": by})])).decode()
        run = await self.run(run_id)
        if what == "ended":
            raise RestError(409, "rest_run_ended", f"Run {run_id} has ended as {run.status}.")
        log.info("run cancelled", run_id=run_id, by=by, status=run.status)
        return run

    async def now(self) -> int:
        """Unix seconds of the Redis clock."""
        return int((await self.redis.time())[0])

    async def site(self, site_id: str) -> Health | None:
        """The health of a site; None when nothing is known of it."""
        return next(iter(await self._healths([site_id])), None)

    async def sites(self, state: State, now: int, first: int, count: int) -> tuple[int, list[Health]]:
        """(how many sites are in a state at `now`, `count` of them from number `first` on), the longest in it first."""
        key, until = health.chosen(state, now, self.settings.overdue_after)
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.zcount(key, "-inf", until)
        pipeline.zrangebyscore(key, "-inf", until, start=first, num=count)
        total, ids = await pipeline.execute()
        return total, await self._healths([site_id.decode() for site_id in ids])

    async def _healths(self, ids: Sequence[str]) -> list[Health]:
        pipeline = self.redis.pipeline(transaction=False)
        health.ask(pipeline, ids)
        return health.answers(ids, await pipeline.execute() if ids else ())

    async def workers(self) -> int:
        """RQ workers heard of lately, by the Redis clock."""
        seconds, _ = await self.redis.time()
        return int(await self.redis.zcount(keys.WORKERS, (seconds - scripts.WORKER_SECONDS) * 1000, "+inf"))

    async def sweep(self) -> None:
        """Look after the active run: one that nobody walks is queued again, or walked here if there is no queue."""
        reply = await self._sweep(args=[json.dumps({"legacy": self._legacy, **admission.fresh_job()})])
        self._legacy = ()
        what, run_id, name = (part.decode() for part in reply)
        if name and not self.stopping.is_set():
            self._in_thread(verifier.follow_up, self.world, name, stop=self.stopping.is_set)
        if what == "orphan":
            self._take_up(run_id)
        if what in ("orphan", "enqueued"):
            log.warning("a run that nobody walked was taken up again", run_id=run_id)

    def watch_for_updates(self) -> None:
        """Keep `newest` fresh until told to stop; in a thread of its own, which no request and no exit waits for."""
        while True:
            try:
                if isinstance(found := updates.refresh(self.world), Release):
                    self.newest = found
            except RedisError as error:
                log.warning("Redis cannot be asked", error=str(error))
            if self.stopping.wait(UPDATE_SECONDS):
                return

    def _take_up(self, run_id: str) -> None:
        """Walk a run here that nobody walks and, without a queue, nobody else would."""
        if not self.settings.use_redis_queue and not self.stopping.is_set():
            self.walk(run_id, "here-" + admission.new_id())

    def walk(self, run_id: str, name: str) -> "asyncio.Task[bool]":
        """Walk a run under `name` in a thread, waited for or not; the task gives whether it went without an error."""

        return self._in_thread(self.world.walk, run_id, name, stop=self.stopping.is_set)

    def _in_thread(self, work: Callable[..., object], *arguments: object, **options: object) -> "asyncio.Task[bool]":
        async def call() -> bool:
            try:
                await asyncio.to_thread(work, *arguments, **options)
            except Exception:  # the sweep will have it taken up again
                log.exception("what goes on in a thread ended with an error", work=work.__name__, of=arguments[-1])
                return False
            return True

        task = asyncio.create_task(call())
        self._walks.add(task)
        task.add_done_callback(self._walks.discard)
        return task

    async def close(self) -> None:
        """Drain the walks and let go of Redis."""
        self.stopping.set()
        await asyncio.gather(*self._walks)
        await self.redis.aclose(close_connection_pool=True)
