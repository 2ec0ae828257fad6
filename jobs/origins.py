"""What a walker learns of an origin server while it walks: how much it bears at once, and whether it is down."""

import math
from dataclasses import dataclass

from jobs.outcomes import Outcome
from jobs.trigger import Verdict

DOWN_AFTER = 3  # sites in a row that got no connection
FIRST_LIMIT = 8  # in flight to a server of which nothing is known
_ROUND = 8  # answers that are measured at the least, and two for each in flight
_LONG = 4  # rounds before a limit that proved right is put to the test again
_PATIENCE = 8  # tries of a higher limit before a lower one is tried again
_QUIET = 400  # answers after the server had too much before a higher limit is tried
_PAYS = 0.7  # of the growth in concurrency: latency may grow by so much of it

_TOO_MUCH = (Outcome.HTTP_4XX, Outcome.HTTP_5XX)  # 429, 502, 503, 504: those that may pass


@dataclass(slots=True, eq=False)
class Origin:
    """An origin server: a resolved address and port. `busy`: triggers in flight to it, by this walker.

    `unreached`: sites in a row that got no connection. `closed_until`: the clock's time before which nothing is sent.
    `probing`: the one trigger in flight finds out whether a server that was down still is. `pace`: once it had a queue.
    """

    address: str
    port: int
    busy: int = 0
    unreached: int = 0
    closed_until: float = 0.0
    probing: bool = False
    pace: "Pace | None" = None

    @property
    def down(self) -> bool:
        """It takes no connections, as far as is known."""
        return self.unreached >= DOWN_AFTER

    def room(self, share: int) -> int:
        """How many more triggers may be in flight to it now; one, while it is in doubt that it takes connections."""
        most = 1 if self.unreached else self.pace.limit if self.pace else FIRST_LIMIT
        return min(share, most) - self.busy

    def note(self, verdict: Verdict, seconds: float, share: int, *, anew: bool, queued: bool) -> None:
        """A trigger has ended. `anew`: its site's first; `queued`: more sites wait for this server.

        Retries of a dead site do not make its server down, nor do those of a broken one slow it down.
        """
        outcome = verdict.outcome
        if outcome is Outcome.CONNECT:
            self.unreached += anew
        elif self.unreached:
            self.unreached, self.closed_until, self.probing = 0, 0.0, False
        if queued and self.pace is None:
            self.pace = Pace()
        if self.pace and queued and outcome is Outcome.DISPATCHED:
            self.pace.answered(seconds, self.busy, share)
        elif self.pace and anew and (outcome is Outcome.TIMEOUT or (verdict.passing and outcome in _TOO_MUCH)):
            self.pace.refused(self.busy)
        self.busy -= 1


class Pace:
    """How many triggers a server may have in flight: the fewest that get nearly the most answers a second out of it.

    A higher limit is tried while latency grows by less than the limit does; where both grow alike, the server only lets
    more of them wait, and a lower limit is tried. In doubt it is the higher one. See docs/decisions.md.
    """

    _proved: tuple[int, float, float] | None  # limit, mean latency and its relative variance
    _flight: int  # answers within which a refusal counts at once: the server had too much just now
    _burst: float  # refusals that good answers, eight for each, have not made up for

    def __init__(self) -> None:
        self._step = 0.5  # of the limit, upwards
        self._patience = 1
        self._usual = math.inf  # latency under the limit that was last held on to
        self._hold(FIRST_LIMIT, 0, rounds=1)

    def answered(self, seconds: float, busy: int, share: int) -> None:
        """A good answer after so long, while sites wait and with it `busy` are in flight."""
        self._count += 1
        self._burst = max(0.0, self._burst - 1 / 8)
        if self._count <= 0:  # begun under another limit
            return
        seconds = max(seconds, 1e-6)
        self._sum += seconds
        self._squares += seconds * seconds
        limit = max(1, min(self.limit, share))
        a_round = max(_ROUND, 2 * limit)
        if self._count < a_round * (1 if self._proved else self._rounds):
            return
        mean = self._sum / self._count
        variance = max(0.0, self._squares / self._count / mean**2 - 1)  # relative, of one answer
        moved = math.log(limit / self._proved[0]) if self._proved else 0.25
        if abs(moved) > 0.1:  # else too little to be told from noise: on
            if self._count < min(16 * variance / moved**2, 4 * a_round):
                return
            variance /= self._count  # of the mean
            if self._proved is None:
                self._patience = 0 if mean > 1.3 * self._usual else self._patience
            elif not _worth(moved, math.log(mean / self._proved[1]), math.sqrt(self._proved[2] + variance)):
                self._usual, self._step = self._proved[1], 0.25
                self._patience = self._patience - 1 if moved > 0 else _PATIENCE
                self._hold(self._proved[0], busy, rounds=_LONG)
                return
            self._proved = limit, mean, variance
        self._try_another(limit, busy, share)

    def refused(self, busy: int) -> None:
        """The server may have had too much; one site in fifty that says so is taken for broken itself.

        Of three that say so at once, with fewer than eight good answers for each, none is.
        """
        self._refusals += 1
        self._burst += 1
        seen = self._count + self._skipped
        if seen < self._flight or self._refusals > 1 + seen / 50 or self._burst > 2:
            self._usual, self._step, self._patience = math.inf, 0.0, _PATIENCE
            self._hold(max(1, min(self.limit, busy) - 1), _QUIET, rounds=1)
            self._flight = busy

    def _try_another(self, limit: int, busy: int, share: int) -> None:
        higher = min(share, limit + max(1, math.ceil(limit * self._step)))
        self._step = min(0.5, 2 * self._step or 1 / limit)
        if self._patience <= 0:
            self.limit = max(1, limit - math.ceil(limit / 4))
            self._patience = _PATIENCE if self.limit == limit else 0
        elif higher > limit:
            self.limit = higher
        else:
            self._patience -= 1
            self._usual = self._proved[1] if self._proved else math.inf
            self._hold(limit, busy, rounds=_LONG)
            return
        self._measure(busy)

    def _hold(self, limit: int, skip: int, rounds: int) -> None:
        """Stay at this limit for so many rounds, as nothing is proved, and take its latency anew."""
        self.limit, self._proved, self._rounds, self._flight, self._burst = limit, None, rounds, 0, 0.0
        self._measure(skip)

    def _measure(self, skip: int) -> None:
        self._skipped, self._count, self._sum, self._squares, self._refusals = skip, -skip, 0.0, 0.0, 0


def _worth(limit: float, latency: float, doubt: float) -> bool:
    """Whether another limit is better than the one that proved right, by the logarithms of how both have grown."""
    too_slow = latency - _PAYS * limit
    return too_slow <= doubt if limit > 0 else too_slow < -doubt
