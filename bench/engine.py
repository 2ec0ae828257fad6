"""How much of the possible the engine and the resolver reach: `python -m bench.engine`, under a minute.

Each figure is a ratio measured in this run, rounds interleaved, median with the spread of the rounds.
"""

import contextlib
import functools
import heapq
import os
import platform
import random
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycurl

from bench.figures import shown
from bench.loopback import Peers, server
from jobs.addresses import AddressGuard, parse_networks
from jobs.engine import CurlEngine, Engine
from jobs.outcomes import OPEN, Outcome
from jobs.resolver import Resolver
from jobs.scripts import Claimed
from jobs.window import Window

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
PATH = "/wp-cron.php?doing_wp_cron"


def main() -> None:
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {pycurl.version}")
    with target(0) as port:
        engine_against_curl(port)
        growth(port)
    with target(0.05) as port:
        fifty_milliseconds(port)
        names(port)


def engine_against_curl(port: int, addresses: int = 1000, in_flight: int = 50, rounds: int = 9) -> None:
    sites = [f"127.0.{i // 250}.{i % 250 + 1}" for i in range(addresses)]
    curl = shutil.which("curl")
    if curl is None:
        print("no curl command here: nothing to compare with")
        return
    with tempfile.TemporaryDirectory() as folder:
        urls = Path(folder, "urls")
        urls.write_text("".join(f'url = "http://{site}:{port}{PATH}"\n' for site in sites))
        one = Path(folder, "one")
        one.write_text(f'url = "http://{sites[0]}:{port}{PATH}"\n')
        command = [curl, "--silent", "--parallel", "--parallel-max", str(in_flight), "--data", "", "--config"]
        ratios, cpu, rates = [], [], []
        for _ in range(rounds):
            starting = measured(
                lambda: subprocess.run([*command, one], check=True, stderr=subprocess.DEVNULL), resource.RUSAGE_CHILDREN
            )
            theirs = measured(
                lambda: subprocess.run([*command, urls], check=True, stderr=subprocess.DEVNULL),
                resource.RUSAGE_CHILDREN,
            )
            ours = measured(lambda: walk_addresses(sites, port, in_flight), resource.RUSAGE_SELF)
            ratios.append((theirs[0] - starting[0]) / ours[0])
            cpu.append((theirs[1] - starting[1]) / ours[1])
            rates.append(addresses / ours[0])
    curl_version = subprocess.run([curl, "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    print(f"{addresses} addresses, new connection each, {in_flight} in flight: engine {shown(rates, 0)} sites/s")
    print(f"  speed  x curl {curl_version} --parallel (its start taken off): {shown(ratios)}")
    print(f"  thrift x curl {curl_version} --parallel (CPU seconds):         {shown(cpu)}")


def growth(port: int, few: int = 1000, many: int = 12000, rounds: int = 3) -> None:
    """The cost of a site must not depend on how many went before it."""
    sites = [f"127.{i // 62500}.{i // 250 % 250}.{i % 250 + 1}" for i in range(many)]
    ratios = []
    for _ in range(rounds):
        _wall, small = measured(lambda: walk_addresses(sites[:few], port, 50), resource.RUSAGE_SELF)
        _wall, large = measured(lambda: walk_addresses(sites, port, 50), resource.RUSAGE_SELF)
        ratios.append(large / many / (small / few))
    print(f"CPU a site, {many} addresses x {few} addresses: {shown(ratios)}")


def walk_addresses(sites: list[str], port: int, in_flight: int) -> None:
    with contextlib.closing(CurlEngine(timeout=10, user_agent="bench")) as engine:
        waiting = iter(sites)
        done = 0
        while done < len(sites):
            while engine.in_flight < in_flight and (site := next(waiting, None)):
                engine.start(site, f"http://{site}:{port}{PATH}", site)
            done += answered(engine)


def fifty_milliseconds(port: int, sites: int = 4000, in_flight: int = 200, rounds: int = 5) -> None:
    ratios = []
    for _ in range(rounds):
        wall, _cpu = measured(
            lambda: walk_addresses([f"127.0.0.{i % 250 + 1}" for i in range(sites)], port, in_flight),
            resource.RUSAGE_SELF,
        )
        ratios.append(sites / wall / (in_flight / 0.05))
    print(f"50 ms target, {in_flight} in flight: x the limit of {in_flight / 0.05:.0f}/s: {shown(ratios)}")


def names(port: int, sites: int = 5000, in_flight: int = 100, rounds: int = 5) -> None:
    """What a walker does: its window and resolver; each site a name of its own, 50 ms to look up and 50 ms to answer.

    Beside it the same with an address for each site. The first look-up of a run is 50 ms that nothing can hide.
    """
    limit = in_flight / 0.05
    named = [f"http://site{i}.example:{port}" for i in range(sites)]
    addressed = [f"http://127.0.{i // 250}.{i % 250 + 1}:{port}" for i in range(sites)]
    with_names: list[float] = []
    with_addresses: list[float] = []
    for _ in range(rounds):
        for urls, ratios in ((named, with_names), (addressed, with_addresses)):
            wall, _cpu = measured(functools.partial(walk_window, urls, in_flight), resource.RUSAGE_SELF)
            ratios.append(sites / wall / limit)
    beside = [one / other for one, other in zip(with_names, with_addresses, strict=True)]
    print(f"{sites} sites that answer in 50 ms, {in_flight} in flight, x the limit of {limit:.0f}/s:")
    print(f"  addresses: {shown(with_addresses)}")
    print(f"  names that take 50 ms: {shown(with_names)}, x addresses {shown(beside)}")


def walk_window(urls: list[str], in_flight: int) -> None:
    def look_up(host: str, port: int, **_: object) -> list[Any]:
        time.sleep(0.05)
        number = int(host[4:].partition(".")[0])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.{number // 250}.{number % 250 + 1}", port))]

    def fail(url: str, outcome: Outcome, detail: str) -> None:
        raise SystemExit(f"the target did not answer: {url} {outcome} {detail}")

    engine = CurlEngine(timeout=10, user_agent="bench")
    guard = AddressGuard(parse_networks("127.0.0.0/8"))
    resolver = Resolver(guard, wake=engine.wake, getaddrinfo=look_up)
    with contextlib.closing(engine), contextlib.closing(resolver):
        window = Window(
            engine,
            resolver,
            concurrency=in_flight,
            max_retries=0,
            clock=time.monotonic,
            jitter=random.Random(0),
            on_failure=fail,
        )
        window.widen(in_flight)
        batches = [[[url, url] for url in urls[start : start + 50]] for start in range(0, len(urls), 50)]
        waiting = [Claimed(page, "", batch, OPEN * len(batch)) for page, batch in enumerate(batches)]
        while waiting or not window.idle:
            if wanted := window.wanted:
                window.hold(waiting[: -(-wanted // 50)])
                del waiting[: -(-wanted // 50)]
            window.start_ready()
            for result in engine.poll(1):
                window.take(result)


def answered(engine: Engine) -> int:
    results = engine.poll(1)
    for result in results:
        if result.status != 200:
            raise SystemExit(f"the target did not answer: {result}")
    return len(results)


def measured(work: Callable[[], object], who: int) -> tuple[float, float]:
    """Seconds on the wall and of CPU."""
    usage, began = resource.getrusage(who), time.perf_counter()
    work()
    wall, after = time.perf_counter() - began, resource.getrusage(who)
    return wall, after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime


def target(delay: float) -> contextlib.AbstractContextManager[int]:
    """A server that answers 200 `delay` seconds after a request; its port."""
    return server(functools.partial(serve, delay=lambda _: delay))


def serve(listener: socket.socket, delay: Callable[[bytes], float]) -> None:
    """Answer each request after as many seconds as `delay` says of it."""
    peers = Peers(listener)
    due: list[tuple[float, int]] = []
    while True:
        peers.wait(max(0, due[0][0] - time.monotonic()) if due else None)
        for fd, request in peers.requests():
            if seconds := delay(request):
                heapq.heappush(due, (time.monotonic() + seconds, fd))
            else:
                peers.answer(fd, ANSWER)
        while due and due[0][0] <= time.monotonic():
            peers.answer(heapq.heappop(due)[1], ANSWER)


if __name__ == "__main__":
    main()
