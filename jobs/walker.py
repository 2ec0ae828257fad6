"""The walker: walks a run's batches until the run has ended. One walker serves every way a run is started.

Several may walk one run, in several processes: each claims batches under a lease and a fence, keeps a sliding
window of triggers in flight across all batches it holds, and checkpoints in the same round trip it claims with.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from redis import exceptions as redis_errors

from jobs.admission import fresh_job
from jobs.engine import Engine
from jobs.errors import FilterError
from jobs.lister import Lease, Lister
from jobs.log import LOGGED_LINES
from jobs.outcomes import Outcome
from jobs.plain_text import plain
from jobs.redis_connection import unavailable
from jobs.resolver import Resolver
from jobs.scripts import BACKLOG, Scripts, StepReply
from jobs.settings import Settings
from jobs.sources import Source
from jobs.window import Window

STEP_SECONDS = 0.5
DRAIN_SECONDS = 5.0
FAREWELL_SECONDS = 2.0  # how long a leaving walker tries to say so
PATIENCE_SECONDS = 60.0  # how long a walker waits for Redis to come back

log = structlog.get_logger("all_sites_cron.walker")


@dataclass(eq=False)
class Walker:
    """Walks the run `run_id` under the name `name`.

    `stop` says that this process is asked to end: the walk is then drained and left to others.
    """

    run_id: str
    name: str
    settings: Settings
    scripts: Scripts
    open_source: Callable[[], Source]
    engine: Engine
    resolver: Resolver
    stop: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    jitter: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._log = log.bind(run_id=self.run_id, walker=self.name)
        self._window = Window(
            self.engine,
            self.resolver,
            concurrency=self.settings.concurrency,
            max_retries=self.settings.max_retries,
            clock=self.clock,
            jitter=self.jitter,
            on_failure=lambda *failure: self._unlogged.append(failure),
        )
        self._lister: Lister | None = None
        self._listing: dict[str, Any] = {}  # read from the source, not yet taken by a step
        self._last = StepReply("running")
        self._stepped_at = -math.inf
        self._trouble_since: float | None = None
        self._unlogged: list[tuple[str, Outcome, str]] = []

    def walk(self, *, again: bool = False) -> StepReply:
        """Walk until the run has ended or others have it; the last reply says how it stands.

        Its status is the run's, or `stopped` (drained on request), `expelled` (this walker was replaced), `busy`
        (another run holds the lock), `ended` (before this walker came), `gone`. `again`: a walker of the same
        name that never said farewell has crashed. Raises redis errors that last longer than a minute.
        """
        cap = self.settings.number_of_sites
        what = self.scripts.start(id=self.run_id, walker=self.name, cap=cap, again=int(again), **fresh_job())
        if what != "walk":
            return StepReply(what)
        self._log.info("walker joined")
        try:
            return self._loop()
        except FilterError as error:
            self._log.error("a filter failed the run", error=str(error))
            return self._farewell(abort={"reason": "filter", "message": plain(str(error), 500)})
        finally:
            if self._lister:
                self._lister.close()

    def _loop(self) -> StepReply:
        while not self.stop():
            if self._step_due():
                reply = self._step()
                if reply and reply.status != "running":
                    return reply
            until = self._stepped_at + STEP_SECONDS
            if self._last.cancelled:
                self._window.grant_retries(0)  # what failed is settled
                if not self.engine.in_flight:
                    return self._farewell()
            elif self._trouble_since is None:
                self._window.start_ready()
                until = min(until, self._window.next_retry or until)
            self._take_answers(0.0 if self._step_due() else until - self.clock())
        return self._leave()

    def _take_answers(self, wait: float) -> None:
        """Wait at most so many seconds for the first answer, or for whoever wakes the engine."""
        for result in self.engine.poll(max(0.0, wait)):
            self._window.take(result)

    def _step_due(self) -> bool:
        last, window = self._last, self._window
        overdue = self.clock() - self._stepped_at >= STEP_SECONDS
        if overdue or self._trouble_since is not None:
            return overdue
        if last.backlog < BACKLOG and self._lister and self._lister.waiting:
            return True
        if last.backlog > 0 and last.share > 0 and self._pages_wanted() > 0:
            return True
        return window.idle and any(batch.changed for batch in window.batches.values())

    def _pages_wanted(self) -> int:
        return math.ceil(self._window.wanted / self.settings.batch_size)

    def _step(self, *, bye: bool = False, **more: object) -> StepReply | None:
        """Checkpoint, renew, claim; None while Redis is away, when nothing new is started. A minute of that raises."""
        window, lister = self._window, self._lister
        if lister and not self._listing and not bye and self._last.backlog < BACKLOG:
            self._listing = lister.take()
        attempted = window.attempted
        self._stepped_at = self.clock()
        try:
            reply = self.scripts.step(
                id=self.run_id,
                walker=self.name,
                want=0 if bye else self._pages_wanted(),
                using=window.using,
                origin=self.settings.origin_concurrency,
                retries=0 if bye else window.retries_asked,
                attempted=attempted,
                seconds=window.seconds,
                batches=window.checkpoint(),
                bye=bye,
                **({"lister": lister.token} if lister else {}),
                **self._listing,
                **more,
                **fresh_job(),
            )
        except redis_errors.RedisError as error:
            if not unavailable(error):
                raise
            self._endure(error)
            return None
        if self._trouble_since is not None:
            self._log.info("Redis is back", seconds=round(self.clock() - self._trouble_since, 1))
            self._trouble_since = None
        self._listing = {}
        window.confirm()
        self._log_step(reply)
        window.attempted -= attempted
        if reply.status == "running" and not bye:
            self._apply(reply)
        return reply

    def _apply(self, reply: StepReply) -> None:
        window = self._window
        if reply.lost:
            window.lose(reply.lost)
        window.widen(reply.share)
        window.grant_retries(reply.retries)
        window.hold(reply.claimed)
        if self._lister and (reply.lister or not reply.listing):
            self._lister.close()
            self._lister = None
        if reply.lister:
            self._lister = Lister(Lease(*reply.lister), self.open_source, self.settings, self.engine.wake, self._log)
        self._last = reply

    def _endure(self, error: Exception) -> None:
        if self._trouble_since is None:
            self._trouble_since = self.clock()
            self._log.warning("Redis cannot be asked; nothing new is started until it can", error=str(error))
        elif self.clock() - self._trouble_since > PATIENCE_SECONDS:
            raise error

    def _leave(self) -> StepReply:
        """Drain for at most 5 s, then give back what is not done; the next walker goes on from there."""
        self._log.info("asked to stop", in_flight=self.engine.in_flight)
        deadline = self.clock() + DRAIN_SECONDS
        while self.engine.in_flight and (left := deadline - self.clock()) > 0:
            self._take_answers(min(STEP_SECONDS, left))
        return self._farewell()

    def _farewell(self, **more: object) -> StepReply:
        deadline = self.clock() + FAREWELL_SECONDS
        while (reply := self._step(bye=True, **more)) is None and self.clock() < deadline:
            self._take_answers(0.2)
        return reply if reply and reply.status != "running" else StepReply("stopped")

    def _log_step(self, reply: StepReply) -> None:
        """The run's start once, and its first failures, whichever walkers have them."""
        if reply.first:
            self._log.info("run started")
        for url, outcome, detail in self._unlogged[: max(0, LOGGED_LINES - reply.failures)]:
            self._log.warning("site not dispatched", url=url, outcome=outcome.name.lower(), detail=detail)
        self._unlogged.clear()
