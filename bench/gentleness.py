"""How a walk treats an origin server: `python -m bench.gentleness [seconds] [scenario] [rounds]`, 25 minutes.

A server has `k` workers that take 30-50 ms for a site. What finds none free waits, or gets 502 once `backlog` wait.
The walk's throughput and 502s stand beside the best fixed concurrency with under 1 % of 502s; rounds interleaved,
medians. `502s`: of first tries, none tried again. `failed`: sites that end as failed in a walk with the retries of the
default settings, the most of any round. Besides: what a dead server and sites that hang cost.
"""

import contextlib
import functools
import heapq
import math
import random
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable

from bench.loopback import Peers, server
from jobs.addresses import AddressGuard, parse_networks
from jobs.engine import CurlEngine
from jobs.outcomes import OPEN
from jobs.resolver import Resolver
from jobs.scripts import Claimed
from jobs.window import Window
from tests.unit.loopback import silent

SHARE = 64  # ORIGIN_CONCURRENCY
RETRIES = 3  # MAX_RETRIES
GOOD, BAD = (b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status for status in (b"200 OK", b"502 Bad Gateway"))
SCENARIOS: dict[str, tuple[int, int, int | None]] = {  # workers at first, after half of the sites, backlog
    f"{k} workers{f', then {then}' if then != k else ''}, {mode}": (k, then, backlog(k))
    for k, then in ((2, 2), (8, 8), (32, 32), (32, 16), (16, 32), (8, 4), (4, 8))
    for mode, backlog in (("all wait", lambda _k: None), ("few wait", lambda k: k // 2), ("none wait", lambda _k: 0))
}


def main(seconds: float = 4.0, only: str = "", rounds: int = 3) -> None:
    print(f"{'':34} best fixed    walk: sites/s   x best   502s   failed   latency, x best")
    for name, (k, then, backlog) in SCENARIOS.items():
        if only in name:
            print(f"{name:34} {compared(k, then, backlog, seconds, rounds)}", flush=True)
    if not only:
        costs()


def compared(k: int, then: int, backlog: int | None, seconds: float, rounds: int) -> str:
    sites = int(seconds * 2 / (0.04 / k + 0.04 / then))
    fixed = sorted({*(math.ceil(n * f) for n in (k, then) for f in (1, 1.25, 1.5))})
    figures: dict[int, list[tuple[float, float, float]]] = {}
    ended = 0
    for turn in range(rounds):
        for limit in (*fixed, 0):  # 0: the walk
            with server(workers(k, then, sites // 2, backlog, turn)) as port:
                walk = functools.partial(fixed_concurrency, limit) if limit else walked
                began = time.monotonic()
                good, bad, latency = walk(addresses(port, sites))
                figures.setdefault(limit, []).append((good / (time.monotonic() - began), bad / sites, latency))
        with server(workers(k, then, sites // 2, backlog, turn)) as port:
            ended = max(ended, walked(addresses(port, sites), retries=RETRIES)[1])
    middle = {
        limit: [statistics.median(column) for column in zip(*rows, strict=True)] for limit, rows in figures.items()
    }
    rate, refused, latency = middle.pop(0)
    best = max((limit for limit in middle if middle[limit][1] < 0.01), key=lambda limit: middle[limit][0])
    ratio, slower = rate / middle[best][0], latency / middle[best][2]
    best_fixed = f"{middle[best][0]:5.0f} at {best:2}"
    return f"{best_fixed}   {rate:13.0f}   {ratio:6.2f}   {refused:4.1%}   {ended / sites:6.1%}   {slower:7.1f}"


def addresses(port: int, sites: int) -> list[str]:
    return [f"http://127.0.0.1:{port}/{i}" for i in range(sites)]


def fixed_concurrency(limit: int, urls: list[str]) -> tuple[int, int, float]:
    """Good answers, 502s, and the mean latency of the good ones."""
    seconds: list[float] = []
    with contextlib.closing(CurlEngine(timeout=10, user_agent="bench")) as engine:
        waiting, done = iter(urls), 0
        while done < len(urls):
            while engine.in_flight < limit and (url := next(waiting, None)):
                engine.start(url, f"{url}/wp-cron.php?doing_wp_cron", "127.0.0.1")
            results = engine.poll(1)
            done += len(results)
            seconds += [result.seconds for result in results if result.status == 200]
    return len(seconds), len(urls) - len(seconds), statistics.mean(seconds)


def walked(urls: list[str], concurrency: int = SHARE, share: int = SHARE, retries: int = 0) -> tuple[int, int, float]:
    """The same of a walker's window, with sites that failed in the end for 502s; `retries`: MAX_RETRIES."""
    budget = max(10, math.ceil(len(urls) / 10))  # as jobs/lua/step.lua has it
    bad: list[str] = []
    seconds: list[float] = []
    engine = CurlEngine(timeout=10, user_agent="bench")
    resolver = Resolver(AddressGuard(parse_networks("127.0.0.0/8")), wake=engine.wake)
    with contextlib.closing(engine), contextlib.closing(resolver):
        window = Window(
            engine,
            resolver,
            concurrency=concurrency,
            max_retries=retries,
            clock=time.monotonic,
            jitter=random.Random(0),
            on_failure=lambda url, _outcome, _detail: bad.append(url),
        )
        window.widen(share)
        window.hold([Claimed(0, "", [[url, url] for url in urls], OPEN * len(urls))])
        while not window.idle:
            granted = min(budget, window.retries_asked)
            budget -= granted
            window.grant_retries(granted)
            window.start_ready()
            for result in engine.poll(0.5):
                seconds += [result.seconds] if result.status == 200 else []
                window.take(result)
    return len(urls) - len(bad), len(bad), statistics.mean(seconds)


def costs() -> None:
    """What trouble costs the others: 1,000 sites on 20 servers that answer in 50 ms, CONCURRENCY 50, timeout 10 s."""
    with server(workers(1000, 1000, 0, None, 0)) as port, silent() as silence:
        nowhere = f"http://127.0.0.1:{silence}"
        well = [f"http://127.0.0.{i % 20 + 1}:{port}/{i}" for i in range(1000)]
        hanging = [f"{url}/hang" if i % 101 == 50 else url for i, url in enumerate(well)]
        for name, urls in (
            ("all well", well),
            ("1 % of them hang", hanging),
            ("and 1,000 of a dead server", [url for i in range(1000) for url in (f"{nowhere}/{i}", well[i])]),
        ):
            began = time.monotonic()
            good, bad, _latency = walked(urls, share=8, concurrency=50)
            print(f"{name:34} {time.monotonic() - began:5.1f} s, {good} dispatched, {bad} not")


def workers(k: int, then: int, change_after: int, backlog: int | None, seed: int) -> Callable[[socket.socket], None]:
    return functools.partial(serve, k=k, then=then, change_after=change_after, backlog=backlog, seed=seed)


def serve(listener: socket.socket, *, k: int, then: int, change_after: int, backlog: int | None, seed: int) -> None:
    """`k` workers, `then` so many after `change_after` good answers; a path with `hang` gets no answer."""
    peers, rng = Peers(listener), random.Random(seed)
    at_work: list[tuple[float, int]] = []
    waiting: deque[int] = deque()
    answered = 0

    def now() -> int:
        return k if answered < change_after else then

    while True:
        peers.wait(max(0, at_work[0][0] - time.monotonic()) if at_work else None)
        while at_work and at_work[0][0] <= time.monotonic():
            peers.answer(heapq.heappop(at_work)[1], GOOD)
            answered += 1
        for fd, data in peers.requests():
            if b"/hang/" in data:
                continue
            if backlog is not None and len(waiting) + len(at_work) >= now() + backlog:
                peers.answer(fd, BAD)
            else:
                waiting.append(fd)
        while waiting and len(at_work) < now():
            heapq.heappush(at_work, (time.monotonic() + rng.uniform(0.03, 0.05), waiting.popleft()))


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((float, str, int), sys.argv[1:], strict=False)))
