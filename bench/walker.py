"""One walker of the product, Redis and checkpoints included: `python -m bench.walker [rounds] [P1 P2 …]`.

P1, P2: beside `curl --parallel` with as many in flight, its start included. P3: beside wrk, which keeps its
connections. P4: beside the best schedules of the same latencies.
"""

import functools
import heapq
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.engine import serve, target
from bench.figures import HEAD, Figure, in_turns, machine
from bench.instant import Instant, instant
from bench.loopback import server
from bench.product import Product, product
from jobs.resolver import Resolver
from tests.unit.test_engine_tls import Authority

QUERY = "wp-cron.php?doing_wp_cron"
LATENCIES = ((0.94, 0.05), (0.05, 0.5), (0.01, 3.0))  # share of the sites, seconds


def p1(rounds: int, sites: int = 20_000) -> Figure:
    """20,000 sites of 1,000 addresses that answer at once."""
    with product() as ours, instant(ours.folder) as network:
        hosts = network.addresses(1000)
        urls = [f"http://{hosts[i % 1000]}:{network.port}/s{i}" for i in range(sites)]
        return beside_curl("P1", f"{sites:,} sites, 1,000 addresses, 50 in flight", ours, network, urls, rounds)


def p2(rounds: int, sites: int = 3_000) -> Figure:
    """The same with TLS, each of 1,000 hosts by its name."""
    names = [f"s{i}.bench.test" for i in range(1000)]
    with tempfile.TemporaryDirectory() as name:
        authority = Authority(Path(name))
        authority.context("*.bench.test")
        certificate = next(path for path in Path(name).iterdir() if path != authority.file)
        with product(ssl_verify=authority.file) as ours, instant(ours.folder, certificate=certificate) as network:
            urls = [f"https://{names[i % 1000]}:{network.port}/s{i}" for i in range(sites)]
            options = [f'cacert = "{authority.file}"']
            options += [f'resolve = "{host}:{network.port}:{_address(host)}"' for host in names]
            work = f"{sites:,} sites, 1,000 names, TLS, 50 in flight"
            return beside_curl("P2", work, ours, network, urls, rounds, options, _names_answered)


def beside_curl(
    name: str,
    work: str,
    ours: Product,
    network: Instant,
    urls: Sequence[str],
    rounds: int,
    options: Sequence[str] = (),
    before: Callable[[], None] | None = None,
) -> Figure:
    ours.sites(urls)
    config = ours.folder / "curl.conf"
    config.write_text("".join(f"{line}\n" for line in (*options, *(f'url = "{url}/{QUERY}"' for url in urls))))
    command = ["curl", "--silent", "--parallel", "--parallel-max", "50", "--data", "", "--config", str(config)]

    def walk() -> float:
        seen = network.requests
        walked = ours.walk(before)
        assert walked.run.total("dispatched") == network.requests - seen == len(urls), walked.run
        return walked.seconds

    def curl() -> float:
        seen, began = network.requests, time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        assert network.requests - seen == len(urls)
        return seconds

    turns = in_turns(rounds, {"ours": walk, "curl": curl})
    rate = len(urls) / sorted(turns.seconds["ours"])[rounds // 2]
    return Figure(name, f"{work}: x curl --parallel", turns.ratios("curl", "ours"), 1.0, beside=f"{rate:,.0f} sites/s")


def _address(host: str) -> str:
    number = int(re.sub(r"\D", "", host))
    return f"127.0.{number // 250}.{number % 250 + 1}"


def _names_answered() -> None:
    """In the walking process the C library's look-up is left out, as `resolve` does for curl."""

    def look_up(host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (_address(host), port))]

    defaults = Resolver.__init__.__kwdefaults__
    assert defaults is not None
    defaults["getaddrinfo"] = look_up


def p3(rounds: int, sites: int = 10_000) -> Figure:
    """Answers after 50 ms, 200 in flight."""
    with product(concurrency=200, origin_concurrency=200) as ours, target(0.05) as port:
        ours.sites(f"http://127.0.{i // 250 % 4}.{i % 250 + 1}:{port}/s{i}" for i in range(sites))

        def walk() -> float:
            walked = ours.walk()
            assert walked.run.total("dispatched") == sites
            return walked.seconds / sites

        def wrk() -> float:
            command = ["wrk", "--threads", "1", "--connections", "200", "--duration", "3s", f"http://127.0.0.1:{port}/"]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            assert "Non-2xx" not in said
            rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
            assert rate
            return 1 / float(rate[1])

        turns = in_turns(rounds, {"ours": walk, "wrk": wrk})
    limit = 0.05 / 200 / sorted(turns.seconds["ours"])[rounds // 2]
    work = f"{sites:,} sites that answer after 50 ms, 200 in flight: x wrk"
    return Figure("P3", work, turns.ratios("wrk", "ours"), 0.92, beside=f"{limit:.2f} x the limit")


def p4(rounds: int, sites: int = 2_000, in_flight: int = 50) -> list[Figure]:
    """A tail: 94 % of the sites take 50 ms, 5 % 500 ms, 1 % 3 s. In every round another order."""
    in_order, best = [], []
    for turn in range(rounds):
        latencies = [seconds for share, seconds in LATENCIES for _ in range(round(share * sites))]
        random.Random(turn).shuffle(latencies)
        with (
            product() as ours,
            server(functools.partial(serve, delay=functools.partial(_latency, latencies=latencies))) as port,
        ):
            ours.sites(f"http://127.0.{i // 250 % 4}.{i % 250 + 1}:{port}/s{i}" for i in range(sites))
            walked = ours.walk()
            assert walked.run.total("dispatched") == sites
            in_order.append(walked.seconds / schedule(latencies, in_flight))
            best.append(walked.seconds / max(sum(latencies) / in_flight, *latencies))
    work = f"{sites:,} sites with a tail, {in_flight} in flight: x the best that any schedule could do"
    return [
        Figure("P4", f"{work} which takes them in the order of the list", in_order, 1.15, most=True),
        Figure("P4", f"{work} that knows all latencies before", best, 1.15, most=True),
    ]


def schedule(latencies: Sequence[float], in_flight: int) -> float:
    """Seconds, when each is begun as soon as one before it has ended."""
    ends = [0.0] * in_flight
    for seconds in latencies:
        heapq.heappush(ends, heapq.heappop(ends) + seconds)
    return max(ends)


def _latency(request: bytes, latencies: Sequence[float]) -> float:
    site = re.search(rb" /s(\d+)/", request)
    assert site
    return latencies[int(site[1])]


FIGURES: dict[str, Callable[[int], Figure | list[Figure]]] = {"P1": p1, "P2": p2, "P3": p3, "P4": p4}


def main(rounds: int = 5, *names: str) -> None:
    print(machine(), HEAD, sep="\n")
    for name, measure in FIGURES.items():
        if name in (names or FIGURES):
            found = measure(rounds)
            for figure in found if isinstance(found, list) else [found]:
                print(figure.row(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5, *sys.argv[2:])
