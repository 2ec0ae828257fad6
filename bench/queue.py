"""The product through RQ: `python -m bench.queue [rounds] [P5 P6 P9]`.

P5: beside the bare walker. P6: two workers beside one. P9: from a call to its first trigger, beside RQ's own job that
does nothing, from its enqueue to its start. The Procfile's processes; their log is not looked at.
"""

import functools
import multiprocessing
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from redis import Redis
from rq import Queue

from bench.engine import ANSWER, target
from bench.figures import HEAD, Figure, in_turns, machine
from bench.loopback import Peers, server
from bench.product import Product, product
from service.embedded import EmbeddedValkey
from tests.integration.stack import Stack, free_port

BARE = "bench-bare"
BARE_WORKER = f"rq worker --quiet {BARE}"


@contextmanager
def deployment(**settings: object) -> Iterator[Stack]:
    """A fresh one: a Valkey server of its own and the web process; no worker yet."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with EmbeddedValkey.start(folder / "v", free_port()) as valkey:
            stack = Stack(valkey.url, folder)
            try:
                stack.set(rate_limit_seconds=0, log_level="warning", **settings)
                yield stack
            finally:
                stack.close()


def sites(stack: Stack, port: int, count: int) -> None:
    """Of 1,000 addresses."""
    urls = (f"http://127.0.{i % 1000 // 250}.{i % 250 + 1}:{port}/s{i}" for i in range(count))
    Product(stack.environ, stack.redis, stack.folder).sites(urls)


def deferred(stack: Stack, count: int) -> float:
    """Seconds from the admission of a run to its end."""
    run = stack.ended(stack.trigger(defer=1).raise_for_status().json()["run_id"], 120)
    assert run.total("dispatched") == count, run
    return ((run.ended_ms or 0) - run.queued_ms) / 1000


def p5(rounds: int, count: int = 12_000) -> Figure:
    """A run through RQ, beside the bare walker's."""
    with deployment(concurrency=100) as stack, product(concurrency=100) as bare, target(0.05) as port:
        sites(stack, port, count)
        bare.set(sites=stack.environ["ALL_SITES_CRON_SITES"])
        stack.web()
        stack.worker()
        turns = in_turns(rounds, {"queue": lambda: deferred(stack, count), "bare": lambda: bare.walk().seconds})
    work = f"{count:,} sites that answer after 50 ms, 100 in flight, through RQ: x the bare walker"
    return Figure("P5", work, turns.ratios("bare", "queue"), 0.95)


def p6(rounds: int, count: int = 12_000) -> Figure:
    """Two workers, beside one."""
    ratios = []
    for _ in range(rounds):
        with deployment(concurrency=100) as stack, target(0.05) as port:
            sites(stack, port, count)
            stack.web()
            stack.worker()
            one = deferred(stack, count)
            stack.worker()
            ratios.append(one / deferred(stack, count))
    work = f"{count:,} sites that answer after 50 ms, 100 in flight each, two workers: x one"
    return Figure("P6", work, ratios, 1.9)


def p9(rounds: int, calls: int = 20) -> Figure:
    """`defer=1` to the first trigger, beside a bare job."""
    first = multiprocessing.get_context("fork").Value("d", 0.0)
    with deployment() as stack, server(functools.partial(_note_first, first=first)) as port:
        sites(stack, port, 1)
        stack.web()
        stack.worker()
        stack.start("bare", command=BARE_WORKER)
        queue = Queue(BARE, connection=Redis.from_url(stack.redis_url))
        each = functools.partial(in_turns, calls, {"ours": lambda: _ours(stack, first), "bare": lambda: _bare(queue)})
        each()  # once for the caches
        ratios = []
        for _ in range(rounds):
            turns = each()
            ours, bare = (sorted(turns.seconds[name])[calls // 2] for name in ("ours", "bare"))
            ratios.append(ours / bare)
    work = "idle fork worker: `defer=1` to the first trigger, x enqueue to start of a bare RQ job"
    return Figure("P9", work, ratios, 1.5, most=True, beside=f"{ours * 1000:.1f} ms, bare {bare * 1000:.1f} ms")


def _ours(stack: Stack, first: "Synchronized[float]") -> float:
    first.value, began = 0.0, time.monotonic()
    run_id = stack.trigger(defer=1).raise_for_status().json()["run_id"]
    stack.ended(run_id)
    return first.value - began


def _bare(queue: Queue) -> float:
    began = time.monotonic()
    job = queue.enqueue("time.monotonic")
    while (result := job.latest_result()) is None:
        time.sleep(0.001)
    assert isinstance(result.return_value, float)
    return result.return_value - began


def _note_first(listener: socket.socket, first: "Synchronized[float]") -> None:
    peers = Peers(listener)
    while True:
        peers.wait(None)
        for fd, _ in peers.requests():
            first.value = first.value or time.monotonic()
            peers.answer(fd, ANSWER)


FIGURES: dict[str, Callable[[int], Figure]] = {"P5": p5, "P6": p6, "P9": p9}


def main(rounds: int = 5, *names: str) -> None:
    print(machine(), HEAD, sep="\n")
    for name, measure in FIGURES.items():
        if name in (names or FIGURES):
            print(measure(rounds).row(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5, *sys.argv[2:])
