"""How a run grows with its network, 1,000 to 200,000 sites: `python -m bench.growth [rounds]`, P7, some 3 minutes.

One walker, 1,000 addresses that answer at once. Redis: what it holds after the run, over what it held before.
"""

import statistics
import sys
from collections.abc import Iterator

from bench.figures import HEAD, Figure, machine
from bench.instant import instant
from bench.product import Product, Walked, product
from jobs import keys

SIZES = (1_000, 20_000, 200_000)
HEALTH = (keys.SITES, keys.FAILING, keys.STUCK, keys.DUE)


def p7(rounds: int) -> Iterator[Figure]:
    """Memory and time a site, of the most sites over the fewest; bytes of Redis a site."""
    memory, times, servers = list[float](), list[float](), list[float]()
    all_bytes, less_health = list[float](), list[float]()
    for _ in range(rounds):
        peaks, a_site, server = dict[int, float](), dict[int, float](), dict[int, float]()
        for size in SIZES:
            with product() as ours, instant(ours.folder) as network:
                hosts = network.addresses(1000)
                ours.sites(f"http://{hosts[i % 1000]}:{network.port}/s{i}" for i in range(size))
                before = used(ours)
                walks = [walked(ours, size) for _ in range(5 if size == SIZES[0] else 1)]
                peaks[size] = statistics.median(walk.peak for walk in walks)
                a_site[size] = statistics.median(walk.seconds for walk in walks) / size
                server[size] = float(ours.redis.info("memory")["used_memory_peak"])
                health = sum(
                    ours.redis.memory_usage(key, samples=0) or 0
                    for prefix in HEALTH
                    for key in ours.redis.scan_iter(f"{prefix}*", count=1000)
                )
                left = used(ours) - before
        memory.append(peaks[SIZES[-1]] / peaks[SIZES[0]] - 1)
        times.append(a_site[SIZES[-1]] / a_site[SIZES[1]] - 1)
        servers.append(server[SIZES[-1]] / SIZES[-1])
        all_bytes.append(left / SIZES[-1])
        less_health.append((left - health) / SIZES[-1])
    few, middle, many = (f"{size:,}" for size in SIZES)
    peak = f"{peaks[SIZES[-1]] / 1e6:.0f} MB at {many} sites"
    yield Figure("P7", f"growth of a walker's memory, {few} to {many} sites", memory, 0.15, most=True, beside=peak)
    rate = f"{1 / a_site[SIZES[-1]]:,.0f} sites/s"
    yield Figure("P7", f"growth of the time a site, {middle} to {many} sites", times, 0.10, most=True, beside=rate)
    peak = f"at most {statistics.median(servers):.0f} while it goes on"
    yield Figure("P7", "bytes a site in Redis after the run, with health", all_bytes, 140, most=True, beside=peak)
    yield Figure("P7", "bytes a site in Redis after the run, without health", less_health, 40, most=True)


def walked(ours: Product, size: int) -> Walked:
    """A run of all sites."""
    walk = ours.walk()
    assert walk.run.total("dispatched") == size, walk.run
    return walk


def used(ours: Product) -> int:
    """Bytes that the server's data takes."""
    return int(ours.redis.info("memory")["used_memory_dataset"])


def main(rounds: int = 3) -> None:
    print(machine(), HEAD, sep="\n")
    for figure in p7(rounds):
        print(figure.row(), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
