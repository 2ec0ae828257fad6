"""How long a large network takes to be listed from its tables: `python -m bench.listing [SITES]`, as root, 2 minutes.

Needs the packages of `make test-system`. Beside the source, in the same rounds: a bare SELECT of the same pages.
"""

import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import structlog

from bench.product import peak_memory
from jobs.lister import Lease, Lister
from jobs.mysql import Database, connect, rows
from jobs.settings import load
from jobs.sites import NEVER
from jobs.sources import DUE_PAGE
from jobs.sources.database import DatabaseSource
from tests.wordpress import daemons

ROUNDS = 5
TABLES = 1000  # with rows; each of the other sites' is a view of one of them
SCHEDULE = "a:2:{i:%d;" + 40 * 'a:1:{s:16:"wp_version_check";a:0:{}}' + 's:7:"version";i:2;}'


def main() -> None:
    sites = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
        daemons.open_to_user(Path(folder))
        server, running = daemons.Database(Path(folder)), daemons.Daemons(Path(folder))
        server.create()
        try:
            server.start(running)
            began = time.perf_counter()
            make(server, sites)
            print(f"{sites} sites, {len(SCHEDULE)} characters of schedule each")
            print(f"made in {time.perf_counter() - began:.0f} s")
            compare(Database("root", "", "localhost", 3306, "network", socket=str(server.socket)), sites)
        finally:
            running.stop()


def make(server: daemons.Database, sites: int, *, url: str = "http://s", one_due_in: int = 10) -> None:
    """The tables of so many sites at `url` and their number; only the first have one of their own."""
    columns = "option_id BIGINT AUTO_INCREMENT PRIMARY KEY, option_name VARCHAR(191) UNIQUE, option_value LONGTEXT"
    flags = "public TINYINT DEFAULT 1, archived TINYINT DEFAULT 0, deleted TINYINT DEFAULT 0, spam TINYINT DEFAULT 0"
    sql = [f"CREATE TABLE wp_blogs (blog_id BIGINT PRIMARY KEY, site_id BIGINT DEFAULT 1, {flags})"]
    for number in range(1, sites + 1):
        table = f"wp_{number}_options" if number > 1 else "wp_options"
        if number <= TABLES:
            sql.append(f"CREATE TABLE {table} ({columns}) ENGINE=Aria")
            due = 1_700_000_000 if number % one_due_in == 0 else 4_000_000_000
            options = f"('siteurl', '{url}{number}'), ('cron', '{SCHEDULE % due}')"
            sql.append(f"INSERT INTO {table} (option_name, option_value) VALUES {options}")
        else:
            sql.append(f"CREATE VIEW {table} AS SELECT * FROM wp_{number % (TABLES - 1) + 2}_options")
    sql += [f"INSERT INTO wp_blogs (blog_id) SELECT seq FROM mysql.seq_1_to_{sites}"]
    server.query("CREATE DATABASE network", "mysql")
    server.query(";".join(sql), "network")


def compare(database: Database, sites: int) -> None:
    kinds = {"the source": by_source, "a bare SELECT": by_select, "the lister, due only": by_lister}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    peaks: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, listing in kinds.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                count, seconds, peak = pool.apply(measured, (listing, database))
            assert count == sites
            times[name].append(seconds)
            peaks[name].append(peak)
    for name in kinds:
        low, high = min(times[name]), max(times[name])
        print(
            f"{name}: {statistics.median(times[name]):.2f} s ({low:.2f} to {high:.2f}), peak {max(peaks[name]):.0f} MB"
        )
    for name in ("the source", "the lister, due only"):
        ratios = [ours / select for ours, select in zip(times[name], times["a bare SELECT"], strict=True)]
        figure = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name}: {figure} x the bare SELECT; wanted is 3 at most")
    triggered = sum(page["n"] for page in due_pages(database, []))
    print(f"requests: {triggered} of {sites}, {100 - 100 * triggered / sites:.0f} % saved")


def timed(listing: Callable[[Database], int], database: Database, sites: int) -> float:
    """Seconds, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        count, seconds, _ = pool.apply(measured, (listing, database))
    assert count == sites
    return seconds


def measured(listing: Callable[[Database], int], database: Database) -> tuple[int, float, float]:
    """(sites, seconds, MB of this process's peak)."""
    began = time.perf_counter()
    count = listing(database)
    seconds = time.perf_counter() - began
    return count, seconds, peak_memory() / 2**20


def by_source(database: Database) -> int:
    with closing(DatabaseSource(database)) as source:
        return sum(site.due != NEVER for page in source.pages("", DUE_PAGE) for site in page.sites)


def by_lister(database: Database) -> int:
    not_due: list[int] = []
    due = sum(int(page["n"]) for page in due_pages(database, not_due))
    return due + sum(not_due)


def due_pages(database: Database, not_due: list[int]) -> Iterator[dict[str, Any]]:
    """The batches that a walk gets; how many sites are left out goes into `not_due`."""
    ready, listed, settings = Event(), dict[str, Any](), load({"REDIS_URL": "redis://"}).settings
    lease = Lease("", cursor="", left=None, begin="", fresh=True)
    lister = Lister(lease, lambda: DatabaseSource(database), settings, ready.set, structlog.get_logger())
    while "ended" not in listed:
        ready.wait()
        ready.clear()
        taken = lister.take()
        assert "fault" not in taken, taken
        listed = taken.get("append", {})
        not_due.append(listed.get("not_due", 0))
        yield from (page for page in listed.get("pages", ()) if json.loads(page["s"]))


def by_select(database: Database) -> int:
    last = count = 0
    with closing(connect(database)) as connection:
        while found := rows(
            connection, f"SELECT blog_id FROM wp_blogs WHERE blog_id > {last} ORDER BY 1 LIMIT {DUE_PAGE}"
        ):
            last = found[-1][0]
            selects = (
                f"SELECT option_name, LEFT(option_value, 100) FROM {database.options(number)}"
                " WHERE option_name IN ('siteurl', 'cron')"
                for (number,) in found
            )
            count += len(rows(connection, " UNION ALL ".join(selects))) // 2
    return count


if __name__ == "__main__":
    main()
