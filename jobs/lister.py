"""The listing: whoever holds a run's lister lease reads the site source, a little ahead of the walk.

The source is read in a thread, so that the first trigger leaves before the listing ends, a slow source does
not hold up the requests in flight, and memory stays flat.
"""

import json
from collections.abc import Callable
from contextlib import closing
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any

from structlog.stdlib import BoundLogger

from jobs import filters
from jobs.errors import FilterError, SettingsError, SourceError
from jobs.log import LOGGED_LINES
from jobs.sites import Site
from jobs.sources import SitePage, Source

_AHEAD = 4  # pages read before the walk asks for them

_Last = dict[str, Any]  # how a listing ended, as the step script takes it


class Lister:
    """Reads the source behind `cursor`, at most `left` sites (None = all), in pages of `size`.

    `fresh`: the run has listed nothing yet; a capped run whose cursor is at the end then starts over.
    """

    def __init__(
        self,
        token: str,
        open_source: Callable[[], Source],
        *,
        cursor: str,
        left: int | None,
        size: int,
        fresh: bool,
        wake: Callable[[], None],
        log: BoundLogger,
    ) -> None:
        self.token = token
        self._open, self._cursor, self._left, self._size, self._fresh = open_source, cursor, left, size, fresh
        self._wake, self._log, self._stop = wake, log, Event()
        self._read: Queue[SitePage | _Last] = Queue(maxsize=_AHEAD)
        Thread(target=self._run, args=(cursor,), name="lister", daemon=True).start()

    @property
    def waiting(self) -> bool:
        """Whether `take` has something."""
        return not self._read.empty()

    def take(self) -> dict[str, Any]:
        """What was read since the last call, as the step script takes it: `append` and `fault`, or nothing."""
        pages: list[dict[str, Any]] = []
        after, last = self._cursor, _Last()
        while not last:
            try:
                item = self._read.get_nowait()
            except Empty:
                break
            if isinstance(item, SitePage):
                pages.append({"s": json.dumps([[site.id, site.url] for site in item.sites]), "n": len(item.sites)})
                self._cursor = item.cursor
            else:
                last = item
        append = {"after": after, "pages": pages, "cursor": self._cursor}
        if "fault" in last:
            return {"append": append, **last}
        return {"append": append | last} if pages or last else {}

    def close(self) -> None:
        """Stop reading; a read under way ends by itself."""
        self._stop.set()

    def _run(self, cursor: str) -> None:
        try:
            with closing(self._open()) as source:
                try:
                    end = self._list(source, cursor)
                finally:  # before the walker hears of the end, which may be the process's
                    self._log_problems(source)
                self._put(end)
        except FilterError as error:
            self._fail("filter", str(error))
        except (SourceError, SettingsError) as error:
            self._fail("source", str(error))
        except Exception:  # noqa: BLE001 - the run must end, whatever it was that went wrong in this thread
            self._log.exception("the listing ended with an error")
            self._fail("internal", "the site source failed; the service's log says more")

    def _fail(self, reason: str, message: str) -> None:
        self._put({"fault": {"reason": reason, "message": message[:500]}})

    def _list(self, source: Source, cursor: str) -> _Last:
        left = self._left
        for start in (cursor, "") if left is not None and cursor and self._fresh else (cursor,):
            for page in source.pages(start, self._size):
                passed = tuple(filters.sites_after(page.sites))
                if sites := _capped(passed, left):  # none: an earlier lister took them all and could not say so
                    cursor = page.cursor if len(sites) == len(passed) else max(site.key for site in sites)
                    if not self._put(SitePage(sites, cursor)):
                        return {}
                if left is not None:
                    left -= len(sites)
                    if left == 0:
                        remaining = source.remaining(cursor)
                        return _end(source, "" if remaining == 0 else cursor, remaining)
            if left != self._left:
                break
        return _end(source, "", 0)

    def _log_problems(self, source: Source) -> None:
        if self._stop.is_set():
            return
        found = [f"{problem.where}: {problem.text}" for problem in source.problems.first] + source.warnings
        for problem in found[:LOGGED_LINES]:
            self._log.warning("site list", problem=problem)
        if (more := source.problems.count + len(source.warnings) - LOGGED_LINES) > 0:
            self._log.warning("site list has more problems", not_shown=more)

    def _put(self, item: SitePage | _Last) -> bool:
        while not self._stop.is_set():
            try:
                self._read.put(item, timeout=0.2)
            except Full:
                continue
            self._wake()
            return True
        return False


def _end(source: Source, goes_on: str, remaining: int | None) -> _Last:
    """The listing is complete: the next capped run goes on behind `goes_on`; `remaining` sites lie there."""
    left = "" if remaining is None else remaining
    return {"ended": True, "goes_on": goes_on, "remaining": left, "problems": source.problems.count}


def _capped(sites: tuple[Site, ...], left: int | None) -> tuple[Site, ...]:
    """At most `left` of a page: the first by key, in the order a filter gave them, so that no site starves."""
    first = set(sorted(sites, key=lambda site: site.key)[:left])
    return tuple(site for site in sites if site in first)
