"""On real parts, as root with the packages of `make test-system`: `python -m bench.wordpress [rounds] [P11 P12]`.

P11: a real WordPress network (nginx, php-fpm with 8 children, MariaDB), one due event a site: the product's run beside
`curl --parallel` with each number in flight, and beside `xargs -P8 curl`. Seconds until every event has run; WordPress
counts them. P12: 100,000 sites in MariaDB of which 1 % are due, one server that answers after 50 ms.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench import listing
from bench.engine import target
from bench.figures import HEAD, Figure, in_turns, machine
from bench.product import Product, product
from jobs.mysql import Database
from tests.wordpress import daemons
from tests.wordpress.network import WordPressNetwork

SWEEP = (4, 8, 16, 32, 64)
PART = 4_000  # sites that the walk over all is measured with; all of them would take ten minutes


def p11(rounds: int, sites: int = 300) -> Iterator[Figure]:
    """The best fixed concurrency that a sweep finds, and xargs."""
    with WordPressNetwork(sites) as network, product() as ours:
        path = ours.folder / "sites.csv"
        path.write_text(network.site_list_csv())
        ours.set(sites=path)
        public = network.public_ids()
        urls = [f"{url}/wp-cron.php?doing_wp_cron" for number, url in network.site_urls().items() if number in public]
        config, lines = ours.folder / "curl.conf", ours.folder / "urls"
        config.write_text("".join(f'url = "{url}"\n' for url in urls))
        lines.write_text("\n".join(urls))
        curl = "curl --silent --data ''"
        xargs = f"xargs -P8 -n1 {curl} -o /dev/null < {lines}"
        clients: dict[str, Callable[[], object]] = {
            "ours": lambda: _all_well(ours, sites),
            "xargs": partial(_shell, xargs),
        }
        for limit in SWEEP:
            clients[f"curl {limit}"] = partial(_shell, f"{curl} --parallel --parallel-max {limit} --config {config}")
        turns = in_turns(rounds, {name: partial(_until_all_ran, network, call) for name, call in clients.items()})
    middle = {name: statistics.median(seconds) for name, seconds in turns.seconds.items()}
    best = min((name for name in clients if name.startswith("curl")), key=lambda name: middle[name])
    beside = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in middle.items())
    work = f"{sites} WordPress sites, one due event each: every event ran, x the time of"
    yield Figure("P11", f"{work} the best fixed client ({best})", turns.ratios("ours", best), 1.05, True, beside)
    yield Figure("P11", f"{work} `xargs -P8 curl`", turns.ratios("ours", "xargs"), 1.0, True)


def _all_well(ours: Product, sites: int) -> None:
    run = ours.walk().run
    assert run.total("dispatched") == sites, run


def _shell(line: str) -> None:
    subprocess.run(line, shell=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _until_all_ran(network: WordPressNetwork, call: Callable[[], object]) -> float:
    network.arm(kinds="public")
    public = network.public_ids()
    network.wait_idle()
    began = time.perf_counter()
    call()
    while network.ran() != dict.fromkeys(public, 1):
        assert time.perf_counter() - began < 120, f"{len(network.ran())} of {len(public)} ran"
        time.sleep(0.01)
    return time.perf_counter() - began


def p12(rounds: int, sites: int = 100_000) -> Iterator[Figure]:
    """Due-only beside a walk over all, and the listing beside a bare SELECT."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder, target(0.05) as port:
        daemons.open_to_user(Path(folder))
        server, running = daemons.Database(Path(folder)), daemons.Daemons(Path(folder))
        server.create()
        try:
            server.start(running)
            listing.make(server, sites, url=f"http://127.0.0.1:{port}/s", one_due_in=100)
            database = Database("root", "", "localhost", 3306, "network", socket=str(server.socket))
            due, every = list[float](), list[float]()
            for _ in range(rounds):
                due.append(_walked(server, sites // 100, due_only="true"))
                every.append(_walked(server, PART, due_only="false", number_of_sites=PART) * sites / PART)
            ratios = [one / other for one, other in zip(every, due, strict=True)]
            beside = f"{statistics.median(due):.1f} s; all of them, by {PART:,}: {statistics.median(every):.0f} s"
            yield Figure("P12", f"{sites:,} sites, 1 % due: x as fast as triggering all", ratios, 40, beside=beside)
            turns = in_turns(
                rounds,
                {
                    "source": lambda: listing.timed(listing.by_source, database, sites),
                    "select": lambda: listing.timed(listing.by_select, database, sites),
                },
            )
            work = "listing them with their due times: x a bare SELECT of the same pages"
            yield Figure("P12", work, turns.ratios("source", "select"), 3, most=True)
        finally:
            running.stop()


def _walked(server: daemons.Database, sites: int, **settings: object) -> float:
    with product(sites=f"mysql://root@localhost/network?socket={server.socket}", verify="false", **settings) as ours:
        walked = ours.walk()
    assert walked.run.total("dispatched") == sites, walked.run
    return walked.seconds


FIGURES: dict[str, Callable[[int], Iterator[Figure]]] = {"P11": p11, "P12": p12}


def main(rounds: int = 5, *names: str) -> None:
    print(machine(), HEAD, sep="\n")
    for name, measure in FIGURES.items():
        if name in (names or FIGURES):
            for figure in measure(rounds):
                print(figure.row(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5, *sys.argv[2:])
