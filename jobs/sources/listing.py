"""The listing of sites: answers of a file or a feed, sorted and without duplicates, in a temporary file on disk."""

import sqlite3
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from jobs.errors import SourceError
from jobs.plain_text import plain
from jobs.sites import Site
from jobs.sources.entries import FLAGS, BadEntry, Entry, Kind, Problems, masked, read_entries, site_of

DUE_PAGE = 500  # sites of a page read, or asked for by id, with their due times
MAX_BYTES = 256 * 1024 * 1024
# SQLite deletes the file of a nameless database itself; nothing is ever rolled back, so it needs no journal.
_TABLE = """PRAGMA journal_mode=OFF;
CREATE TABLE sites (key TEXT PRIMARY KEY, id TEXT, url TEXT UNIQUE, due INTEGER, place TEXT) WITHOUT ROWID"""


class SitePage(NamedTuple):
    """Sites in key order. `cursor`: what to pass as `after` to go on behind the last of them.

    `now`: Unix seconds on the clock that their due times are of; None when the source cannot tell.
    """

    sites: tuple[Site, ...]
    cursor: str
    now: int | None = None


class State(NamedTuple):
    """A site's cron as it is now. `due`: as Site.due. `locked`: Unix seconds since when `doing_cron` is held, or 0."""

    due: int
    locked: float


class Source(ABC):
    """The public sites of the network, read forwards by key. Used by one thread, for one reading at a time.

    `problems`: the entries left out so far. `warnings`: what the operator should know, one sentence each.
    `excluded`: how many entries each of the flags `public`, `archived`, `deleted`, `spam` left out so far.
    """

    knows_due = False  # whether its sites have due times and `states` works; a feed knows after its first page

    def __init__(self) -> None:
        self.problems, self.excluded = Problems(), Counter[str]()
        self.warnings: list[str] = []

    @abstractmethod
    def pages(self, after: str, size: int) -> Iterator[SitePage]:
        """Sites whose Site.key is greater than `after` ("" = all), in key order, `size` of them a page.

        A source that knows due times reads DUE_PAGE a page if that is more; a page of such a source may be empty.
        Raises SourceError.
        """

    def states(self, ids: Sequence[str]) -> tuple[int, Mapping[str, State]]:
        """(Unix seconds now on the network's clock, site id → its cron now) of at most DUE_PAGE sites.

        A site that is not there any more, or that the source cannot tell of, is left out. Raises SourceError.
        """
        return 0, {}

    @abstractmethod
    def remaining(self, after: str) -> int | None:
        """How many sites lie behind `after`; None until the source has been read to its end."""

    @abstractmethod
    def close(self) -> None:
        """Gives back what the source holds."""


class Listing(Source):
    """A Source over answers that `_read` puts into the index. `name`: what problems call it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._now: int | None = None  # of the page in the index
        self._good = False  # an entry was in order, be it of a hidden site
        self._complete = False  # the index holds the whole list
        self._index = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._index.executescript(_TABLE)

    def pages(self, after: str, size: int) -> Iterator[SitePage]:
        start = after
        while True:
            size = max(size, DUE_PAGE) if self.knows_due else size
            try:
                following = None if self._complete else self._read(after, size)
            except (OSError, sqlite3.Error) as error:
                raise SourceError(f"{self._name}: {error}") from None
            query = "SELECT id, url, due FROM sites WHERE key > ? ORDER BY key LIMIT ?"
            while sites := tuple(Site(*row) for row in self._index.execute(query, (after, size))):
                after = sites[-1].key
                yield SitePage(sites, after, self._now)
            if following is None:
                break
            after = following
        if self.problems.count and not self._good and (self._complete or not start):
            raise SourceError(f"not one usable site; {self.problems.first[0]}")

    def remaining(self, after: str) -> int | None:
        query = "SELECT COUNT(*) FROM sites WHERE key > ?"
        return int(self._index.execute(query, (after,)).fetchone()[0]) if self._complete else None

    def close(self) -> None:
        self._index.close()

    @abstractmethod
    def _read(self, after: str, size: int) -> str | None:
        """Indexes the complete list, or what follows `after`; the key to go on behind, None = there is no more."""

    def _read_list(self, handle: IO[bytes], kind: Kind) -> None:
        flagged = self._fill(self._name, read_entries(handle, kind, self._name))
        self._complete = True
        if self._good and not flagged and kind != "txt":
            unflagged = "no column public, archived, deleted or spam: taken as already filtered"
            self.warnings.append(f"{self._name}: {unflagged}")

    def _fill(self, name: str, entries: Iterable[Entry], *, numbered: bool = False) -> bool:
        """Puts these sites in the place of all others; whether an entry has a flag. `numbered`: each has an id."""
        flagged = False
        self._index.executescript("DELETE FROM sites; BEGIN")
        for place, entry in entries:
            try:
                if isinstance(found := site_of(entry, dated=self._now is not None), Site):
                    self._add(found, place, numbered=numbered)
                else:
                    self.excluded[found] += 1
            except BadEntry as error:
                self.problems.add(f"{name} {place}", str(error))
            else:
                self._good = True
                flagged = flagged or (isinstance(entry, dict) and not FLAGS.keys().isdisjoint(entry))
        self._index.execute("COMMIT")
        return flagged

    def _add(self, site: Site, place: str, *, numbered: bool) -> None:
        if numbered and site.id.startswith("u-"):
            raise BadEntry(f"{masked(site.url)} has no id")
        row = (site.key, site.id, site.url, site.due, place)
        if not self._index.execute("INSERT OR IGNORE INTO sites VALUES (?, ?, ?, ?, ?)", row).rowcount:
            query = "SELECT url, place FROM sites WHERE key = ? OR url = ? LIMIT 1"
            url, kept = self._index.execute(query, (site.key, site.url)).fetchone()
            raise BadEntry(f"{masked(url) if url == site.url else f'id {site.id}'} is listed twice; {kept} is kept")


class FileSource(Listing):
    """The sites of a file .txt, .csv or .json, read once."""

    def __init__(self, path: Path, kind: Kind) -> None:
        super().__init__(plain(path.name))
        self._path, self._kind = path, kind

    def _read(self, after: str, size: int) -> None:
        length = self._path.stat().st_size
        if not self._path.is_file():  # a pipe would never end
            raise SourceError(f"{self._path}: is not a file")
        if length > MAX_BYTES:
            raise SourceError(f"{self._path}: is larger than {MAX_BYTES} bytes")
        with self._path.open("rb") as handle:
            self._read_list(handle, self._kind)
