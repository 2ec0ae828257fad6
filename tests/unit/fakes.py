"""What the unit tests of the core stand on: real scripts on a fake Redis, an engine and a clock without a network."""

import heapq
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fakeredis

from jobs import keys
from jobs.admission import Admitted, How, Trigger, decide, fresh_job, request
from jobs.engine import Result
from jobs.outcomes import Outcome
from jobs.runs import Run, read
from jobs.scripts import Claimed, Scripts, StepReply
from jobs.settings import Settings, load
from jobs.sites import Site
from jobs.sources import SitePage, Source


def settings(**values: object) -> Settings:
    """The defaults but for `values`; the demo network's addresses are allowed."""
    environ = {f"ALL_SITES_CRON_{name.upper()}": str(value) for name, value in values.items()}
    return load(
        {"REDIS_URL": "redis://localhost", "ALL_SITES_CRON_ALLOWED_NETWORKS": "127.0.0.0/8", **environ}
    ).settings


def urls(count: int, *, addresses: int = 1) -> list[str]:
    """`count` sites in turn on `addresses` origin servers; their names need no look-up."""
    return [f"http://127.0.0.{i % addresses + 1}:8001/site-{i}" for i in range(count)]


class Cron:
    """The scripts on an empty fake Redis, spoken to as admission and walkers do."""

    def __init__(self, **values: object) -> None:
        self.settings = settings(**values)
        self.redis: Any = fakeredis.FakeRedis()  # redis-py's types are unions of every reply's shape
        self.scripts = Scripts(self.redis, self.settings)

    def trigger(self, how: How = "defer", *, cooldown: int = 60, by: str = "test") -> Admitted:
        """Press the button."""
        trigger = Trigger(how, "redis", by, cooldown)
        arguments, walker = request(trigger)
        return decide(self.scripts.admit(arguments), trigger, walker)

    def start(self, run_id: str, walker: str, *, cap: int = 0, again: bool = False) -> str:
        return self.scripts.start(id=run_id, walker=walker, cap=cap, again=int(again), **fresh_job())

    def step(self, run_id: str, walker: str, **arguments: Any) -> StepReply:
        """A step that reports and wants nothing, but for `arguments`."""
        nothing: dict[str, Any] = {"want": 0, "using": 0, "origin": 8, "retries": 0, "attempted": 0, "bye": False}
        nothing["seconds"] = {}
        nothing["batches"] = [*arguments.pop("changed", ()), *arguments.pop("kept", ())]
        return self.scripts.step(id=run_id, walker=walker, **{**nothing, **fresh_job(), **arguments})

    def running(self, *sites: int, walker: str = "walker", cap: int = 0) -> str:
        """A run that `walker` has started, with batches of so many sites listed and none claimed."""
        run_id = self.trigger(cooldown=0).run_id
        assert self.start(run_id, walker, cap=cap) == "walk"
        self.list_pages(run_id, walker, [pairs(n, first=100 * p + 1) for p, n in enumerate(sites)])
        return run_id

    def list_pages(self, run_id: str, walker: str, pages: Sequence[Sequence[Sequence[str]]]) -> StepReply:
        """Take the lister lease and append the whole list. `pages`: [id, URL] pairs."""
        reply = self.step(run_id, walker, want=1)
        assert reply.lister
        listing = append(pages, after=reply.lister[1], ended=True)
        return self.step(run_id, walker, lister=reply.lister[0], append=listing, kept=kept(reply.claimed))

    def run(self, run_id: str) -> Run:
        return read(self.redis, run_id)

    def get(self, run_id: str, field: str) -> str | None:
        """A field of the run record as it is stored."""
        value = self.redis.hget(keys.run(run_id), field)
        return None if value is None else str(value.decode())

    def jobs(self) -> list[str]:
        """The ids that wait in the queue, the next one first."""
        return [job.decode() for job in self.redis.lrange("rq:queue:all-sites-cron", 0, -1)]

    def now(self) -> int:
        """Redis's time, milliseconds."""
        seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def expire_leases(self, run_id: str, *walkers: str) -> None:
        """As if LOCK_TIMEOUT had passed since these walkers' last step."""
        owners = self.redis.hgetall(f"{keys.run(run_id)}:owners")
        for page, token in owners.items():
            if token.decode().rpartition("#")[0] in walkers:
                self.redis.zadd(f"{keys.run(run_id)}:leases", {page: self.now() - 1})
        for walker in walkers:
            self.redis.zadd(f"{keys.run(run_id)}:walkers", {walker: self.now() - 1})
        self.redis.delete(keys.LOCK)


def pairs(count: int, *, first: int = 1) -> list[list[str]]:
    """`count` sites as the scripts keep them."""
    return [[str(first + i), f"http://127.0.0.1:8001/{first + i}"] for i in range(count)]


def append(pages: Sequence[Sequence[Sequence[str]]], *, after: str = "", ended: bool = False) -> dict[str, Any]:
    """A listing as jobs.lister hands it to a step; the cursor is the last id."""
    cursor = pages[-1][-1][0] if pages else after
    listing: dict[str, Any] = {"after": after, "cursor": cursor}
    listing["pages"] = [{"s": json.dumps(list(page)), "n": len(page)} for page in pages]
    if ended:
        listing |= {"ended": True, "goes_on": cursor, "remaining": "", "problems": 0}
    return listing


def kept(claims: Sequence[Claimed]) -> list[dict[str, Any]]:
    """Claimed batches as a step reports them unchanged."""
    return [{"p": claim.page, "t": claim.token} for claim in claims]


def changed(claim: Claimed, out: str | None = None, **failures: list[Any]) -> dict[str, Any]:
    """A claimed batch with new outcomes, one byte a site; all dispatched unless `out` says otherwise."""
    texts = {site.lstrip("_"): json.dumps(failure) for site, failure in failures.items()}
    return {"p": claim.page, "t": claim.token, "o": out or "d" * len(claim.out), "f": texts}


class Clock:
    """Time that passes only when the fake engine waits."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class FakeEngine:
    """Answers each trigger after a while of the clock. `answer`: URL → (seconds, fields of the Result).

    `started`: (time, site URL, address) of every trigger. `most`: the most that were in flight, in all and an address.
    """

    def __init__(self, clock: Clock, answer: Callable[[str], tuple[float, dict[str, Any]]] | None = None) -> None:
        self.clock, self.answer = clock, answer or (lambda _url: (0.05, {}))
        self.started: list[tuple[float, str, str]] = []
        self.most: dict[str, int] = {"": 0}
        self._busy: dict[str, int] = {}
        self._due: list[tuple[float, int, str, Result]] = []
        self._woken = threading.Event()
        self._spins = 0

    def start(self, tag: object, url: str, address: str, headers: Sequence[str] = ()) -> None:
        assert url.endswith("/wp-cron.php?doing_wp_cron")
        site = url.removesuffix("/wp-cron.php?doing_wp_cron")
        self.started.append((self.clock.time, site, address))
        seconds, fields = self.answer(site)
        fields = {"status": 0 if "error" in fields else 200} | fields
        result = Result(tag, **{"seconds": seconds, **fields})
        heapq.heappush(self._due, (self.clock.time + seconds, len(self.started), address, result))
        self._busy[address] = self._busy.get(address, 0) + 1
        self.most[address] = max(self.most.get(address, 0), self._busy[address])
        self.most[""] = max(self.most[""], len(self._due))

    def poll(self, wait: float) -> list[Result]:
        if not self._due and self._woken.wait(0.001):
            self._woken.clear()
            return []
        self._spins = 0 if wait else self._spins + 1
        assert self._spins < 5000, "the walker spins instead of waiting"
        until = self.clock.time + (max(wait, 1e-6) if wait else 0.0)  # a shorter wait is lost in a float's rounding
        self.clock.time = max(self.clock.time, min(self._due[0][0] if self._due else until, until))
        results = []
        while self._due and self._due[0][0] <= self.clock.time:
            _, _, address, result = heapq.heappop(self._due)
            self._busy[address] -= 1
            results.append(result)
        return results

    def wake(self) -> None:
        self._woken.set()

    @property
    def in_flight(self) -> int:
        return len(self._due)

    def close(self) -> None:
        self._due.clear()

    def times(self, site: str) -> list[float]:
        """When triggers to this site were started, from the first one on."""
        found = [time for time, url, _ in self.started if url == site]
        return [time - found[0] for time in found]


class ListSource(Source):
    """A source with these sites in memory. `limit`: a read after so many sites raises what it is given."""

    def __init__(self, sites: Sequence[Site], fault: Exception | None = None) -> None:
        super().__init__()
        self._sites, self._fault = sorted(sites, key=lambda site: site.key), fault
        self.knows_due = any(site.due is not None for site in sites)

    def pages(self, after: str, size: int) -> Iterator[SitePage]:
        if self._fault:
            raise self._fault
        left = [site for site in self._sites if site.key > after]
        for first in range(0, len(left), size):
            page = left[first : first + size]
            yield SitePage(tuple(page), page[-1].key)

    def remaining(self, after: str) -> int | None:
        return sum(site.key > after for site in self._sites)

    def close(self) -> None:
        pass


def letters(run: Run) -> dict[Outcome, int]:
    """The outcomes that any site of the run had."""
    return {outcome: n for outcome, n in run.counts.items() if n}
