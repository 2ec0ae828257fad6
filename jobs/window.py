"""The window: which site is triggered next, by whom it was claimed and what became of it.

It slides over all batches a walker holds, so that one slow site never holds up the others; it knows
nothing of Redis or sockets' details: the walker feeds it claims and answers.
"""

import heapq
import random
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

from jobs import filters
from jobs.addresses import refused
from jobs.batches import Attempt, Batch
from jobs.engine import Engine, Result
from jobs.metrics import REQUEST_BOUNDS, REQUEST_BUCKETS
from jobs.origins import Origin
from jobs.outcomes import OPEN, Outcome
from jobs.resolver import Address, Blocked, Pair, Resolver
from jobs.scripts import Claimed
from jobs.sites import Site, host_and_port
from jobs.trigger import RETRY_DELAYS, Verdict, judge, trigger_url

LOOK_AHEAD = 120  # sites that wait for a slot at the least, their names looked up


@dataclass(eq=False)
class Window:
    """At most `concurrency` triggers in flight; to one origin server at most `share`, and what its pace allows.

    `on_failure` hears of every site that was not dispatched, once, as its outcome is settled.
    """

    engine: Engine
    resolver: Resolver
    concurrency: int
    max_retries: int
    clock: Callable[[], float]
    jitter: random.Random
    on_failure: Callable[[str, Outcome, str], None]

    def __post_init__(self) -> None:
        self.batches: dict[int, Batch] = {}
        self.share = 0
        self.attempted = 0
        self.seconds = dict.fromkeys((*REQUEST_BUCKETS, "sum"), 0.0)  # of all answers so far
        self._parked: dict[Pair, list[Attempt]] = {}  # waiting for their name, by (host, port)
        self._origins: dict[Pair, Origin] = {}  # those in use or with a history, by (address, port)
        self._ready: dict[Origin, deque[Attempt]] = {}
        self._turns: OrderedDict[Origin, None] = OrderedDict()  # origins that may start a site
        self._closed: dict[Origin, deque[Attempt]] = {}  # origins not to be asked now, with what is held back
        self._unstarted = 0  # parked and ready
        self._asking: list[tuple[Attempt, Verdict, float]] = []  # failed, waiting for a grant of the retry budget
        self._later: list[tuple[float, int, Attempt]] = []  # the retry lane, by due time
        self._order = count()

    def hold(self, claims: Iterable[Claimed]) -> None:
        """Take claimed batches on and start looking their names up."""
        for claim in claims:
            batch = self.batches[claim.page] = Batch(claim.token, claim.sites, bytearray(claim.out, "ascii"))
            for index, (_, url) in enumerate(claim.sites):
                if claim.out[index] == OPEN:
                    self._resolve(Attempt(batch, index, url))

    def lose(self, pages: Iterable[int]) -> None:
        """Another walker has these batches: what is still to do is forgotten, what is in flight is ignored."""
        for page in pages:
            if batch := self.batches.pop(page, None):
                batch.lost = True
        self._asking = [asked for asked in self._asking if not asked[0].batch.lost]
        self._later = [entry for entry in self._later if not entry[2].batch.lost]
        heapq.heapify(self._later)
        for waiting in (*self._parked.values(), *self._ready.values(), *self._closed.values()):
            left = [attempt for attempt in waiting if not attempt.batch.lost]
            waiting.clear()
            waiting.extend(left)
        self._ready = {origin: waiting for origin, waiting in self._ready.items() if waiting}
        self._unstarted = sum(len(waiting) for waiting in (*self._parked.values(), *self._ready.values()))

    def checkpoint(self) -> list[dict[str, Any]]:
        """The batches held as the step script wants them: `o` and `f` only of those that changed."""
        return [
            {"p": page, "t": batch.token}
            | ({"o": batch.out.decode("ascii"), "f": batch.failures} if batch.changed else {})
            for page, batch in self.batches.items()
        ]

    def confirm(self) -> None:
        """The checkpoint is in Redis; batches without an open site are done with."""
        for batch in self.batches.values():
            batch.changed, batch.failures = False, {}
        self.batches = {page: batch for page, batch in self.batches.items() if ord(OPEN) in batch.out}

    @property
    def wanted(self) -> int:
        """How many more sites should be claimed so that no slot stays empty for want of a site."""
        if self._unstarted < LOOK_AHEAD:
            return 3 * LOOK_AHEAD - self._unstarted  # some 240 sites a claim, and so a round trip
        if self._unstarted >= 10 * LOOK_AHEAD or len(self._ready) > self.concurrency:
            return 0  # holding more would only keep them from others
        parked = sum(len(waiting) for waiting in self._parked.values())
        startable = sum(max(0, min(len(q), origin.room(self.share))) for origin, q in self._ready.items())
        return max(0, self.concurrency - self.engine.in_flight - parked - startable)  # sites of few, busy servers

    @property
    def idle(self) -> bool:
        """Nothing in flight, nothing to start, nothing to retry, nothing held back."""
        waiting = self._unstarted or any(self._closed.values())
        return not (self.engine.in_flight or waiting or self._later or self._asking)

    @property
    def using(self) -> int:
        """The most requests in flight to any one origin server."""
        return max((origin.busy for origin in self._origins.values()), default=0)

    @property
    def next_retry(self) -> float | None:
        """When the retry lane has its next site due, or an origin server that named a time."""
        named = (origin.closed_until for origin, held in self._closed.items() if held and not origin.down)
        return min((*named, *(entry[0] for entry in self._later[:1])), default=None)

    @property
    def retries_asked(self) -> int:
        """Sites that wait for a grant of the run's retry budget."""
        return len(self._asking)

    def grant_retries(self, granted: int) -> None:
        """Spend the grant on the sites that waited longest; the others are settled as they failed."""
        asking, self._asking = self._asking, []
        for attempt, verdict, _ in asking[granted:]:
            self._settle(attempt, verdict)
        for attempt, verdict, failed_at in asking[:granted]:
            delay = RETRY_DELAYS[min(attempt.tries, len(RETRY_DELAYS) - 1)] * self.jitter.uniform(0.8, 1.2)
            attempt.tries += 1
            due = failed_at + (delay if verdict.wait is None else verdict.wait)
            heapq.heappush(self._later, (due, next(self._order), attempt))

    def start_ready(self) -> None:
        """Fill the free slots, one site of each origin server in turn."""
        self._collect()
        free = self.concurrency - self.engine.in_flight
        while free > 0 and self._turns:
            origin, _ = self._turns.popitem(last=False)
            if self._may_start(origin):
                self._start(origin)
                free -= 1
                self._queue(origin)

    def _may_start(self, origin: Origin) -> bool:
        return origin in self._ready and origin.room(self.share) > 0

    def _queue(self, origin: Origin) -> None:
        """Give an origin its turn, unless it has one, has nothing to start or has its share in flight."""
        if self._may_start(origin):
            self._turns.setdefault(origin)

    def _start(self, origin: Origin) -> None:
        attempt = self._ready[origin].popleft()
        if not self._ready[origin]:
            del self._ready[origin]
        self._unstarted -= 1
        origin.busy += 1
        site = Site(attempt.batch.sites[attempt.index][0], attempt.url)
        url, headers = filters.request_after(site, trigger_url(attempt.url))
        self.engine.start(attempt, url, origin.address, headers)
        self.attempted += 1

    def widen(self, share: int) -> None:
        """A new share of ORIGIN_CONCURRENCY; origins that were full may go on."""
        if share != self.share:
            self.share = share
            for origin in self._ready:
                self._queue(origin)

    def take(self, result: Result) -> None:
        """An answer came in."""
        self.seconds[REQUEST_BUCKETS[bisect_left(REQUEST_BOUNDS, result.seconds)]] += 1
        self.seconds["sum"] += result.seconds
        attempt = cast(Attempt, result.tag)
        origin = cast(Origin, attempt.origin)
        verdict = judge(result, attempt.url)
        anew, queued = attempt.tries == 0, origin in self._ready
        origin.note(verdict, result.seconds, self.share, anew=anew, queued=queued)
        if verdict.passing and verdict.wait:
            self._close(origin, self.clock() + verdict.wait)
        if attempt.batch.lost:
            pass
        elif verdict.follow and not attempt.redirected:
            attempt.redirected, attempt.url = True, verdict.follow
            self._resolve(attempt)
        elif verdict.outcome is Outcome.CONNECT and origin.down:
            self._hold_back(attempt, verdict, self.clock() - result.seconds + RETRY_DELAYS[0])
        else:
            self._conclude(attempt, verdict)
        self._queue(origin)
        if not (origin.busy or origin.unreached or origin.pace or origin in self._ready or origin in self._closed):
            del self._origins[origin.address, origin.port]

    def _hold_back(self, attempt: Attempt, verdict: Verdict, until: float) -> None:
        """Its server is down: it and what else is meant for that server waits, or is given up if this was the probe."""
        origin = cast(Origin, attempt.origin)
        held = self._close(origin, until)
        held.extend(asked[0] for asked in self._asking if asked[0].origin is origin)
        self._asking = [asked for asked in self._asking if asked[0].origin is not origin]
        held.append(attempt)
        if origin.probing:
            origin.probing = False
            given_up = Verdict(Outcome.HOST_DOWN, f"{origin.address} port {origin.port} is down: {verdict.detail}")
            while held:
                self._settle(held.popleft(), given_up)

    def _close(self, origin: Origin, until: float) -> deque[Attempt]:
        """Ask it nothing before `until`; what is held back for it counts for no slot and keeps no claim from others."""
        origin.closed_until = max(origin.closed_until, until)
        held = self._closed.setdefault(origin, deque())
        if waiting := self._ready.pop(origin, None):
            self._unstarted -= len(waiting)
            held.extend(waiting)
        return held

    def _reopen(self) -> None:
        """Go on with origins whose time has come: those that are down with one site, once nothing else is open."""
        now = self.clock()
        elsewhere = self.engine.in_flight - sum(origin.busy for origin in self._closed)
        last = not (elsewhere or self._unstarted or self._later or self._asking)
        for origin, held in list(self._closed.items()):
            if origin.down and last and held and not origin.busy and origin.closed_until <= now:
                origin.probing = True
                self._enter(origin, [held.popleft()])
            elif not origin.down and origin.closed_until <= now:
                self._enter(origin, self._closed.pop(origin))

    def _conclude(self, attempt: Attempt, verdict: Verdict) -> None:
        if verdict.passing and attempt.tries < self.max_retries:
            self._asking.append((attempt, verdict, self.clock()))
        else:
            self._settle(attempt, verdict)

    def _settle(self, attempt: Attempt, verdict: Verdict) -> None:
        outcome, (site_id, url) = verdict.outcome, attempt.batch.sites[attempt.index]
        attempt.batch.settle(attempt.index, verdict)
        filters.act(filters.SITE_PROCESSED, Site(site_id, url), outcome.kind, outcome.reason, verdict.detail)
        if outcome is not Outcome.DISPATCHED:
            self.on_failure(url, outcome, verdict.detail)

    def _resolve(self, attempt: Attempt) -> None:
        """Towards `_ready`, by way of a look-up if need be."""
        self._unstarted += 1
        pair = host_and_port(attempt.url)
        if pair in self._parked:
            self._parked[pair].append(attempt)
        else:
            self._place(pair, [attempt])

    def _collect(self) -> None:
        for pair in self.resolver.collect():
            if waiting := self._parked.pop(pair, None):
                self._place(pair, waiting)
        while self._later and self._later[0][0] <= self.clock():
            self._resolve(heapq.heappop(self._later)[2])
        if self._closed:
            self._reopen()

    def _enter(self, origin: Origin, attempts: Collection[Attempt]) -> None:
        if attempts:
            self._unstarted += len(attempts)
            self._ready.setdefault(origin, deque()).extend(attempts)
            self._queue(origin)

    def _place(self, pair: Pair, attempts: list[Attempt]) -> None:
        answer = self.resolver.ask(*pair)
        if answer is None:
            self._parked[pair] = attempts
            return
        self._unstarted -= len(attempts)
        if isinstance(answer, Address):
            place = (answer.ip, pair[1])
            origin = self._origins.setdefault(place, Origin(*place))
            for attempt in attempts:
                attempt.origin = origin
            if origin in self._closed:
                self._closed[origin].extend(attempts)
            else:
                self._enter(origin, attempts)
            return
        if isinstance(answer, Blocked):
            verdict = Verdict(Outcome.BLOCKED, f"{pair[0]}: {refused(answer.ip, answer.allow)}")
        else:
            verdict = Verdict(Outcome.DNS, answer.reason, passing=True)
        for attempt in attempts:
            self._conclude(attempt, verdict)
