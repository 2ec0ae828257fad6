"""The window: which site is triggered next, by whom it was claimed and what became of it.

It slides over all batches a walker holds, so that one slow site never holds up the others; it knows
nothing of Redis or sockets' details: the walker feeds it claims and answers.
"""

import heapq
import json
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from jobs.engine import Engine, Result
from jobs.outcomes import OPEN, Outcome
from jobs.resolver import Address, Blocked, Resolver
from jobs.scripts import Claimed
from jobs.trigger import RETRY_DELAYS, Verdict, judge, trigger_url

Origin = tuple[str, int]
LOOK_AHEAD = 120  # sites that wait for a slot at the least, their names looked up


@dataclass(slots=True)
class Batch:
    """A claimed batch. `out`: one byte a site. `failures`: site id → JSON fields of jobs.runs.Failure behind it."""

    token: str
    sites: list[list[str]]
    out: bytearray
    open: int
    failures: dict[str, list[Any]] = field(default_factory=dict)
    changed: bool = False
    lost: bool = False


@dataclass(slots=True)
class Attempt:
    """One site on its way to an outcome. `url` changes when a redirect is followed. `tries`: triggers sent before."""

    batch: Batch
    index: int
    url: str
    tries: int = 0
    redirected: bool = False
    origin: Origin | None = None


class Window:
    """At most `concurrency` triggers in flight, at most `share` to one origin server.

    `on_failure` hears of every site that was not dispatched, once, as its outcome is settled.
    """

    def __init__(
        self,
        engine: Engine,
        resolver: Resolver,
        *,
        concurrency: int,
        max_retries: int,
        clock: Callable[[], float],
        jitter: random.Random,
        on_failure: Callable[[str, Outcome, str], None],
    ) -> None:
        self._engine, self._resolver = engine, resolver
        self._concurrency, self._max_retries, self._clock = concurrency, max_retries, clock
        self._jitter, self._on_failure = jitter, on_failure
        self.batches: dict[int, Batch] = {}
        self.share = 0
        self.attempted = 0
        self._parked: dict[Origin, list[Attempt]] = {}  # waiting for their name, by (host, port)
        self._ready: dict[Origin, deque[Attempt]] = {}  # by origin server
        self._turns: deque[Origin] = deque()  # origins that may start a site, each once
        self._in_turn: set[Origin] = set()
        self._busy: dict[Origin, int] = {}  # in flight, by origin server
        self._unstarted = 0
        self._asking: list[tuple[Attempt, Verdict, float]] = []  # failed, waiting for a grant of the retry budget
        self._later: list[tuple[float, int, Attempt]] = []  # the retry lane, by due time
        self._order = 0

    def hold(self, claims: Iterable[Claimed]) -> None:
        """Take claimed batches on and start looking their names up."""
        for claim in claims:
            batch = Batch(claim.token, claim.sites, bytearray(claim.out, "ascii"), claim.out.count(OPEN))
            self.batches[claim.page] = batch
            for index, (_, url) in enumerate(claim.sites):
                if claim.out[index] == OPEN:
                    self._resolve(Attempt(batch, index, url))

    def lose(self, pages: Iterable[int]) -> None:
        """Another walker has these batches: what is still to do is forgotten, what is in flight is ignored."""
        for page in pages:
            if batch := self.batches.pop(page, None):
                batch.lost = True
        self._later = [entry for entry in self._later if not entry[2].batch.lost]
        heapq.heapify(self._later)

    def checkpoint(self) -> dict[str, Any]:
        """What the step script wants to know of the batches held: `changed` and merely `kept` ones."""
        changed, kept = [], []
        for page, batch in self.batches.items():
            entry: dict[str, Any] = {"p": page, "t": batch.token}
            if batch.changed:
                entry["o"] = batch.out.decode("ascii")
                if batch.failures:
                    entry["f"] = {site: json.dumps(failure) for site, failure in batch.failures.items()}
                changed.append(entry)
            else:
                kept.append(entry)
        return {"changed": changed, "kept": kept}

    def confirm(self, pages: Iterable[int]) -> None:
        """The changes of these batches are in Redis; those without an open site are done with."""
        for page in pages:
            batch = self.batches[page]
            batch.changed, batch.failures = False, {}
            if batch.open == 0:
                del self.batches[page]

    @property
    def wanted(self) -> int:
        """How many more sites should be claimed so that no slot stays empty for want of a site."""
        if self._unstarted < LOOK_AHEAD:
            return 3 * LOOK_AHEAD - self._unstarted  # some 240 sites a claim, and so a round trip
        if self._unstarted >= 10 * LOOK_AHEAD or len(self._ready) > self._concurrency:
            return 0  # holding more would only keep them from others
        return max(0, self._concurrency - self._engine.in_flight - self._startable())  # sites of few, busy servers

    def _startable(self) -> int:
        parked = sum(len(waiting) for waiting in self._parked.values())
        free = (min(len(q), self.share - self._busy.get(origin, 0)) for origin, q in self._ready.items())
        return parked + sum(max(0, n) for n in free)

    @property
    def idle(self) -> bool:
        """Nothing in flight, nothing to start, nothing to retry."""
        return not (self._engine.in_flight or self._unstarted or self._later or self._asking)

    @property
    def using(self) -> int:
        """The most requests in flight to any one origin server."""
        return max(self._busy.values(), default=0)

    @property
    def next_retry(self) -> float | None:
        """When the retry lane has its next site due."""
        return self._later[0][0] if self._later else None

    @property
    def retries_asked(self) -> int:
        """Sites that wait for a grant of the run's retry budget."""
        return len(self._asking)

    def grant_retries(self, granted: int) -> None:
        """Spend the grant on the sites that waited longest; the others are settled as they failed."""
        asking, self._asking = self._asking, []
        for number, (attempt, verdict, failed_at) in enumerate(asking):
            if number >= granted:
                self._settle(attempt, verdict)
                continue
            delay = RETRY_DELAYS[min(attempt.tries, len(RETRY_DELAYS) - 1)] * self._jitter.uniform(0.8, 1.2)
            attempt.tries += 1
            self._order += 1
            due = failed_at + (delay if verdict.wait is None else verdict.wait)
            heapq.heappush(self._later, (due, self._order, attempt))

    def start_ready(self) -> None:
        """Fill the free slots, one site of each origin server in turn."""
        self._collect()
        free = self._concurrency - self._engine.in_flight
        while free > 0 and self._turns:
            origin = self._turns.popleft()
            self._in_turn.discard(origin)
            waiting = self._ready[origin]
            while waiting and waiting[0].batch.lost:
                waiting.popleft()
                self._unstarted -= 1
            if waiting and self._busy.get(origin, 0) < self.share:
                self._start(waiting.popleft(), origin)
                free -= 1
            if waiting:
                self._queue(origin)
            else:
                del self._ready[origin]

    def _queue(self, origin: Origin) -> None:
        """Give an origin its turn, unless it has one, has nothing to start or has its share in flight."""
        if origin in self._ready and origin not in self._in_turn and self._busy.get(origin, 0) < self.share:
            self._in_turn.add(origin)
            self._turns.append(origin)

    def _start(self, attempt: Attempt, origin: Origin) -> None:
        self._unstarted -= 1
        self._busy[origin] = self._busy.get(origin, 0) + 1
        self.attempted += 1
        self._engine.start(attempt, trigger_url(attempt.url), origin[0])

    def widen(self, share: int) -> None:
        """A new share of ORIGIN_CONCURRENCY; origins that were full may go on."""
        if share != self.share:
            self.share = share
            for origin in self._ready:
                self._queue(origin)

    def take(self, result: Result) -> None:
        """An answer came in."""
        attempt = cast(Attempt, result.tag)
        origin = cast(Origin, attempt.origin)
        left = self._busy[origin] - 1
        if left:
            self._busy[origin] = left
        else:
            del self._busy[origin]
        self._queue(origin)
        if attempt.batch.lost:
            return
        verdict = judge(result, attempt.url)
        if verdict.follow and not attempt.redirected:
            attempt.redirected, attempt.url = True, verdict.follow
            self._resolve(attempt)
        else:
            self._conclude(attempt, verdict)

    def _conclude(self, attempt: Attempt, verdict: Verdict) -> None:
        if verdict.passing and attempt.tries < self._max_retries:
            self._asking.append((attempt, verdict, self._clock()))
        else:
            self._settle(attempt, verdict)

    def _settle(self, attempt: Attempt, verdict: Verdict) -> None:
        batch = attempt.batch
        if batch.lost:
            return
        batch.out[attempt.index] = ord(verdict.outcome.value)
        batch.open -= 1
        batch.changed = True
        if verdict.outcome is not Outcome.DISPATCHED:
            site_id, url = batch.sites[attempt.index]
            outcome = verdict.outcome
            batch.failures[site_id] = [url, outcome.kind, outcome.reason, verdict.detail]
            self._on_failure(url, outcome, verdict.detail)

    def _resolve(self, attempt: Attempt) -> None:
        """Towards `_ready`, by way of a look-up if need be."""
        self._unstarted += 1
        parts = urlsplit(attempt.url)
        pair = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        if pair in self._parked:
            self._parked[pair].append(attempt)
        else:
            self._place(pair, [attempt])

    def _collect(self) -> None:
        for pair in self._resolver.collect():
            if waiting := self._parked.pop(pair, None):
                self._place(pair, waiting)
        while self._later and self._later[0][0] <= self._clock():
            attempt = heapq.heappop(self._later)[2]
            if not attempt.batch.lost:
                self._resolve(attempt)

    def _place(self, pair: Origin, attempts: list[Attempt]) -> None:
        answer = self._resolver.ask(*pair)
        if answer is None:
            self._parked[pair] = attempts
            return
        if isinstance(answer, Address):
            origin = (answer.ip, pair[1])
            for attempt in attempts:
                attempt.origin = origin
            self._ready.setdefault(origin, deque()).extend(attempts)
            self._queue(origin)
            return
        self._unstarted -= len(attempts)
        if isinstance(answer, Blocked):
            verdict = Verdict(
                Outcome.BLOCKED,
                f"{pair[0]} has the address {answer.ip}, which is not public; if it may be called, set "
                f"ALL_SITES_CRON_ALLOWED_NETWORKS={answer.allow}",
            )
        else:
            verdict = Verdict(Outcome.DNS, answer.reason, passing=True)
        for attempt in attempts:
            self._conclude(attempt, verdict)
