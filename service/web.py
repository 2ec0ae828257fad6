"""What the handlers of the web process work with."""

import json
from dataclasses import dataclass
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from jobs import admission, keys, runs, scripts
from jobs.admission import Admitted, Trigger
from jobs.errors import RedisUnavailable
from jobs.redis_connection import unavailable
from jobs.runs import Run
from jobs.world import World
from service.walks import Walks

log = structlog.get_logger("all_sites_cron.web")


@dataclass(frozen=True)
class Web:
    """`redis` is the event loop's own client; `world.redis` would block it."""

    world: World
    redis: Redis
    walks: Walks
    admit_script: Any
    sweep_script: Any

    async def admit(self, trigger: Trigger) -> Admitted:
        """One Redis round trip decides; raises a Refused, or admission.NothingQueued."""
        arguments, walker = admission.request(trigger)
        try:
            reply = await self.admit_script(args=[arguments])
        except RedisError as error:
            if not unavailable(error):
                raise
            log.warning("Redis cannot be asked", error=str(error))
            raise RedisUnavailable("Redis is not available; nothing was started.") from error
        return admission.decide(reply, trigger, walker)

    async def run(self, run_id: str) -> Run:
        """The record of a run; raises RunNotFound."""
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.hgetall(keys.run(run_id))
        pipeline.hgetall(keys.failures(run_id))
        return runs.parse(run_id, *await pipeline.execute())

    async def workers(self) -> int:
        """RQ workers heard of lately, by the Redis clock."""
        seconds, _ = await self.redis.time()
        return int(await self.redis.zcount(keys.WORKERS, (seconds - scripts.WORKER_SECONDS) * 1000, "+inf"))

    def walk(self, run_id: str) -> None:
        """Walk a run here though nobody waits for it."""
        if not self.walks.stopping:
            self.walks.start(run_id, "here-" + admission.new_id())

    async def sweep(self) -> None:
        """Look after the active run: one that nobody walks is queued again, or walked here if there is no queue."""
        reply = await self.sweep_script(args=[json.dumps(admission.fresh_job())])
        what, run_id = (part.decode() for part in reply)
        if what == "orphan":
            self.walk(run_id)
        if what in ("orphan", "enqueued"):
            log.warning("a run that nobody walked was taken up again", run_id=run_id)
