"""Sites from the network's own tables, read-only, with the time of their next cron event."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jobs.errors import SourceError
from jobs.mysql import Connection, Database, NoSuchTable, connect, rows
from jobs.sites import NEVER, BadUrl, Site, normalise_url
from jobs.sources.entries import FLAGS, masked
from jobs.sources.listing import DUE_PAGE, SitePage, Source, State

_LOCK = "_transient_doing_cron"
# The option `cron` begins with its first event's time; a version may stand before it, which core takes out first.
# Times behind the year 5138 never come.
_FIRST_EVENT = re.compile(r'a:\d+:\{(?:s:7:"version";i:\d+;)?i:(-?\d{1,11});')
_NUMBER = re.compile(r"\d{1,11}(?:\.\d+)?")
_SERVED = " AND ".join(f"{flag} = '{served}'" for flag, served in FLAGS.items())  # quoted: in old networks an enum
_EXCLUDED = " ".join(f"WHEN {flag} <> '{served}' THEN '{flag}'" for flag, served in FLAGS.items())
# Longer than an address may be; CONVERT, because tables of different collations cannot be united.
_OPTION = "CONVERT(option_name USING utf8mb4), CONVERT(LEFT(option_value, 2001) USING utf8mb4)"


class DatabaseSource(Source):
    """The public sites of one network of a WordPress multisite; connects when it is first asked.

    A page is one query for the ids and one for the addresses and due times of all of them; no schedule is moved.
    """

    knows_due = True

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database, self._blogs = database, f"`{database.prefix}blogs`"
        self._behind = f"FROM {self._blogs} WHERE blog_id > %s AND site_id = {database.network} AND {_SERVED}"
        self._connection: Connection | None = None

    def pages(self, after: str, size: int) -> Iterator[SitePage]:
        self._look()
        query, good = f"SELECT blog_id {self._behind} ORDER BY blog_id LIMIT %s", after != ""
        while found := self._rows(query, (_number(after), max(size, DUE_PAGE))):
            now, options = self._options((number for (number,) in found), "siteurl", "cron")
            sites = tuple(site for (number,) in found if (site := self._site(number, options.get(number))))
            after, good = str(found[-1][0]).zfill(20), good or bool(sites)
            yield SitePage(sites, after, now)
        if self.problems.count and not good:
            raise SourceError(f"not one usable site; {self.problems.first[0]}")

    def states(self, ids: Sequence[str]) -> tuple[int, Mapping[str, State]]:
        now, options = self._options((int(number) for number in ids if number.isdecimal()), "cron", _LOCK)
        locks = {number: _NUMBER.match(held.get(_LOCK, "")) for number, held in options.items()}  # as PHP's cast
        return now, {
            str(number): State(_due(options[number]), float(lock[0]) if lock else 0.0)
            for number, lock in locks.items()
        }  # fmt: skip

    def remaining(self, after: str) -> int | None:
        return int(self._rows(f"SELECT COUNT(*) {self._behind}", (_number(after),))[0][0])

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _look(self) -> None:
        """Counts what the flags leave out; raises SourceError where there is no such network."""
        query = f"SELECT site_id, CASE {_EXCLUDED} END AS flag, COUNT(*) FROM {self._blogs} GROUP BY site_id, flag"  # noqa: S608 - names of ours
        try:
            counts = self._rows(query)
        except NoSuchTable as error:
            raise SourceError(f"{error}; is prefix={self._database.prefix} that of a multisite network?") from None
        if (wanted := self._database.network) not in (networks := {network for network, _, _ in counts}):
            there = ", ".join(map(str, sorted(networks))) or "none"
            raise SourceError(f"database: network={wanted} has no site; networks that have: {there}")
        self.excluded = Counter({flag: number for network, flag, number in counts if flag and network == wanted})

    def _site(self, number: int, options: Mapping[str, str] | None) -> Site | None:
        """None for a site that cannot be called, which then is among the problems."""
        if options is None or not (url := options.get("siteurl")):
            wrong = f"has no {'table' if options is None else 'siteurl in'} {self._database.options(number)}"
        else:
            try:
                return Site(str(number), normalise_url(url), _due(options))
            except BadUrl as error:
                wrong = f"siteurl {masked(url)} {error}"
        self.problems.add(f"database site {number}", wrong)
        return None

    def _options(self, ids: Iterable[int], *names: str) -> tuple[int, dict[int, dict[str, str]]]:
        """(Unix seconds there, site id → its options of these names, cut); sites without the table are left out."""
        tables = {number: self._database.options(number) for number in ids}
        while True:
            selects = ["SELECT 0, '', UNIX_TIMESTAMP()"]
            for number, table in tables.items():
                selects.append(f"SELECT {number}, {_OPTION} FROM `{table}` WHERE option_name IN {names}")  # noqa: S608
            try:
                (_, _, now), *options = self._rows(" UNION ALL ".join(selects))
            except NoSuchTable:
                query = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
                answer = self._rows(f"{query} AND table_name IN %s", (list(tables.values()),))
                present = {name.lower() for (name,) in answer}  # the server may have made them so
                if all(table.lower() in present for table in tables.values()):
                    raise
                tables = {number: table for number, table in tables.items() if table.lower() in present}
                continue
            found: dict[int, dict[str, str]] = {number: {} for number in tables}
            for number, name, value in options:
                found[number][name] = value
            return int(now), found

    def _rows(self, sql: str, values: Sequence[object] = ()) -> tuple[tuple[Any, ...], ...]:
        if self._connection is None:
            self._connection = connect(self._database)
        return rows(self._connection, sql, values)


def _number(key: str) -> int:
    return int(key) if key.isdecimal() else 0  # "", or of another source


def _due(options: Mapping[str, str]) -> int:
    """As core's `_get_cron_array` has it: what is no array, or has no event in it, has nothing scheduled."""
    first = _FIRST_EVENT.match(options.get("cron", ""))
    return max(int(first[1]), 0) if first else NEVER  # as of a feed; a time before 1970 is some plugin's nonsense
