"""The walker: walks a run's batches until the run has ended. One walker serves every way a run is started.

Several may walk one run, in several processes: each claims batches under a lease and a fence, keeps a sliding
window of triggers in flight across all batches it holds, and checkpoints in the same round trip it claims with.
"""

import math
import random
import time
from collections.abc import Callable
from typing import Any

import structlog
from redis import exceptions as redis_errors

from jobs.admission import fresh_job
from jobs.engine import Engine
from jobs.lister import Lister
from jobs.outcomes import Outcome
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
LOGGED_LINES = 20

log = structlog.get_logger("all_sites_cron.walker")


class Walker:
    """Walks the run `run_id` under the name `name`.

    `stop` says that this process is asked to end: the walk is then drained and left to others.
    """

    def __init__(
        self,
        run_id: str,
        name: str,
        settings: Settings,
        scripts: Scripts,
        open_source: Callable[[], Source],
        engine: Engine,
        resolver: Resolver,
        *,
        stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
    ) -> None:
        self._run_id, self._name, self._settings, self._scripts = run_id, name, settings, scripts
        self._open_source, self._engine, self._stop, self._clock = open_source, engine, stop, clock
        self._log = log.bind(run_id=run_id, walker=name)
        self._window = Window(
            engine,
            resolver,
            concurrency=settings.concurrency,
            max_retries=settings.max_retries,
            clock=clock,
            jitter=jitter or random.Random(),  # noqa: S311 - spreads retries, guards nothing
            on_failure=self._log_failure,
        )
        self._lister: Lister | None = None
        self._listing: dict[str, Any] = {}  # read from the source, not yet taken by a step
        self._last: StepReply | None = None
        self._stepped_at = -math.inf
        self._trouble_since: float | None = None
        self._failures = 0

    def walk(self, *, again: bool = False) -> StepReply:
        """Walk until the run has ended or others have it; the last reply says how it stands.

        Its status is the run's, or `stopped` (drained on request), `expelled` (this walker was replaced), `busy`
        (another run holds the lock), `ended` (before this walker came), `gone`. `again`: a walker of the same
        name that never said farewell has crashed. Raises redis errors that last longer than a minute.
        """
        cap = self._settings.number_of_sites
        what = self._scripts.start(id=self._run_id, walker=self._name, cap=cap, again=int(again), **fresh_job())
        if what != "walk":
            return StepReply(what)
        self._log.info("walk started")
        try:
            return self._loop()
        finally:
            if self._lister:
                self._lister.close()
            if self._failures > LOGGED_LINES:
                self._log.warning("more sites failed", not_shown=self._failures - LOGGED_LINES)

    def _loop(self) -> StepReply:
        while not self._stop():
            if self._step_due():
                reply = self._step()
                if reply and reply.status != "running":
                    return reply
            if self._trouble_since is None:
                self._window.start_ready()
            self._take_answers(self._stepped_at + STEP_SECONDS)
        return self._leave()

    def _take_answers(self, until: float) -> None:
        """Wait for answers until `until`, the retry lane's next site, or whoever wakes the engine."""
        if self._window.next_retry is not None:
            until = min(until, self._window.next_retry)
        wait = 0.0 if self._step_due() else max(0.0, min(until - self._clock(), STEP_SECONDS))
        for result in self._engine.poll(wait):
            self._window.take(result)

    def _step_due(self) -> bool:
        last = self._last
        if self._clock() - self._stepped_at >= STEP_SECONDS:
            return True
        if last is None or self._trouble_since is not None:
            return False
        if last.backlog < BACKLOG and (self._listing or (self._lister and self._lister.waiting)):
            return True
        if last.backlog > 0 and last.share > 0 and self._pages_wanted() > 0:
            return True
        return self._window.idle and any(batch.changed for batch in self._window.batches.values())

    def _pages_wanted(self) -> int:
        return math.ceil(self._window.wanted / self._settings.batch_size)

    def _step(self, *, bye: bool = False) -> StepReply | None:
        """Checkpoint, renew, claim; None while Redis is away, when nothing new is started. A minute of that raises."""
        arguments = self._arguments(bye=bye)
        self._stepped_at = self._clock()
        try:
            reply = self._scripts.step(**arguments)
        except redis_errors.RedisError as error:
            if not unavailable(error):
                raise
            self._endure(error)
            return None
        if self._trouble_since is not None:
            self._log.info("Redis is back", seconds=round(self._clock() - self._trouble_since, 1))
            self._trouble_since = None
        self._window.confirm(page["p"] for page in arguments["changed"])
        self._window.attempted -= arguments["attempted"]
        self._listing = {}
        self._apply(reply)
        return reply

    def _arguments(self, *, bye: bool) -> dict[str, Any]:
        window, lister = self._window, self._lister
        if lister and not self._listing and not bye and (self._last is None or self._last.backlog < BACKLOG):
            self._listing = lister.take()
            if "ended" in self._listing.get("append", {}) or "fault" in self._listing:
                self._log_problems(lister)
        want = 0 if bye else self._pages_wanted()
        return {
            "id": self._run_id,
            "walker": self._name,
            "want": want,
            "list": want > 0,
            "using": window.using,
            "origin": self._settings.origin_concurrency,
            "retries": 0 if bye else window.retries_asked,
            "attempted": window.attempted,
            "bye": bye,
            **window.checkpoint(),
            **({"lister": lister.token} if lister else {}),
            **self._listing,
            **fresh_job(),
        }

    def _apply(self, reply: StepReply) -> None:
        window = self._window
        window.lose(reply.lost)
        if reply.status != "running":
            return
        window.widen(reply.share)
        window.grant_retries(reply.retries)
        window.hold(reply.claimed)
        if reply.lister:
            token, cursor, left = reply.lister
            fresh = reply.sites == 0
            size, wake = self._settings.batch_size, self._engine.wake
            self._lister = Lister(token, self._open_source, cursor=cursor, left=left, size=size, fresh=fresh, wake=wake)
        elif self._lister and not reply.listing:
            self._lister.close()
            self._lister = None
        self._last = reply

    def _endure(self, error: Exception) -> None:
        if self._trouble_since is None:
            self._trouble_since = self._clock()
            self._log.warning("Redis cannot be asked; nothing new is started until it can", error=str(error))
        elif self._clock() - self._trouble_since > PATIENCE_SECONDS:
            raise error

    def _leave(self) -> StepReply:
        """Drain for at most 5 s, then give back what is not done; the next walker goes on from there."""
        self._log.info("asked to stop", in_flight=self._engine.in_flight)
        deadline = self._clock() + DRAIN_SECONDS
        while self._engine.in_flight and self._clock() < deadline:
            for result in self._engine.poll(min(STEP_SECONDS, max(0.0, deadline - self._clock()))):
                self._window.take(result)
        deadline = self._clock() + FAREWELL_SECONDS
        while (reply := self._step(bye=True)) is None and self._clock() < deadline:
            self._engine.poll(0.2)
        if reply and reply.status != "running":
            return reply
        return StepReply("stopped")

    def _log_failure(self, url: str, outcome: Outcome, detail: str) -> None:
        self._failures += 1
        if self._failures <= LOGGED_LINES:
            self._log.warning("site not dispatched", url=url, outcome=outcome.name.lower(), detail=detail)

    def _log_problems(self, lister: Lister) -> None:
        problems = lister.problems()
        for problem in problems[:LOGGED_LINES]:
            self._log.warning("site list", problem=problem)
        if len(problems) > LOGGED_LINES:
            self._log.warning("site list has more problems", not_shown=len(problems) - LOGGED_LINES)
