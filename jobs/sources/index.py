"""The public sites of one complete list, sorted and without duplicates, in a temporary file on disk."""

import sqlite3
from collections.abc import Iterator
from typing import IO, NamedTuple

from jobs.errors import SourceError
from jobs.sites import Site
from jobs.sources.entries import FLAGS, BadEntry, Kind, read_entries, site_of
from jobs.sources.problems import Problems, masked

UNFLAGGED = "no column public, archived, deleted or spam: taken as already filtered"


class SitePage(NamedTuple):
    """At least one site, in key order. `cursor`: what to pass as `after` to go on behind the last of them."""

    sites: tuple[Site, ...]
    cursor: str


class SiteIndex:
    """Reads the whole of `handle` when made; memory does not grow with the number of sites.

    `name`: what problems call the source. Raises SourceError for a list that cannot be read, or has entries and not
    one good one. `problems`: the entries that were left out. `warnings`: what the operator should know.
    """

    def __init__(self, handle: IO[bytes], kind: Kind, name: str) -> None:
        self.problems = Problems()
        self.warnings: list[str] = []
        self._name = name
        self._numbered = False
        # SQLite deletes the file of a nameless database itself. Used by one thread at a time.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            self._build(handle, kind)
        except sqlite3.Error as error:
            self.close()
            raise SourceError(f"{name}: no room for its temporary index ({error})") from None
        except BaseException:
            self.close()
            raise

    def _build(self, handle: IO[bytes], kind: Kind) -> None:
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute(
            "CREATE TABLE sites (key TEXT PRIMARY KEY, id TEXT, url TEXT UNIQUE, place TEXT) WITHOUT ROWID"
        )
        self._db.execute("BEGIN")
        good, flagged = False, kind == "txt"
        for place, entry in read_entries(handle, kind, self._name):
            try:
                site = site_of(entry)
                if site:
                    self._add(site, place)
            except BadEntry as error:
                self.problems.add(f"{self._name} {place}", str(error))
            else:
                good = True
                flagged = flagged or (isinstance(entry, dict) and not FLAGS.keys().isdisjoint(entry))
        self._db.execute("COMMIT")
        if self.problems.count and not good:
            raise SourceError(f"not one usable site; {self.problems.first[0]}")
        if good and not flagged:
            self.warnings.append(f"{self._name}: {UNFLAGGED}")

    def _add(self, site: Site, place: str) -> None:
        numbered = not site.id.startswith("u-")
        if numbered and not self._numbered:
            self._numbered = True
            for url, where in self._db.execute("SELECT url, place FROM sites ORDER BY key"):
                self.problems.add(f"{self._name} {where}", f"{masked(url)} has no id, and other entries have one")
            self._db.execute("DELETE FROM sites")
        elif self._numbered and not numbered:
            raise BadEntry(f"{masked(site.url)} has no id, and other entries have one")
        row = (site.key, site.id, site.url, place)
        if not self._db.execute("INSERT OR IGNORE INTO sites VALUES (?, ?, ?, ?)", row).rowcount:
            query = "SELECT url, place FROM sites WHERE key = ? OR url = ? LIMIT 1"
            url, kept = self._db.execute(query, (site.key, site.url)).fetchone()
            what = masked(url) if url == site.url else f"id {site.id}"
            raise BadEntry(f"{what} is listed twice; {kept} is kept")

    def pages(self, after: str, size: int) -> Iterator[SitePage]:
        while page := self.page(after, size):
            yield page
            after = page.cursor

    def page(self, after: str, size: int) -> SitePage | None:
        rows = self._db.execute("SELECT id, url FROM sites WHERE key > ? ORDER BY key LIMIT ?", (after, size))
        sites = tuple(Site(*row) for row in rows)
        return SitePage(sites, sites[-1].key) if sites else None

    def remaining(self, after: str) -> int:
        count: int = self._db.execute("SELECT COUNT(*) FROM sites WHERE key > ?", (after,)).fetchone()[0]
        return count

    def close(self) -> None:
        self._db.close()
