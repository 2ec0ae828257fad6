"""The listing: whoever holds a run's lister lease reads the site source, a little ahead of the walk.

Sites with nothing due are counted here and go no further, where the source knows due times (DUE_ONLY).

The source is read in a thread, so that the first trigger leaves before the listing ends, a slow source does
not hold up the requests in flight, and memory stays flat.
"""

import json
from collections.abc import Callable
from contextlib import closing
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, NamedTuple

from structlog.stdlib import BoundLogger

from jobs import filters
from jobs.errors import FilterError, SettingsError, SourceError
from jobs.log import LOGGED_LINES
from jobs.settings import Settings
from jobs.sites import Site
from jobs.sources import SitePage, Source

_AHEAD = 4  # pages read before the walk asks for them

_Last = dict[str, Any]  # how a listing ended, as the step script takes it


class _Listed(NamedTuple):
    """A page of the source. `taken`: its sites that are to be triggered; the others up to `cursor` are not due.

    `last`: how the listing ended with it, if it did.
    """

    page: SitePage
    taken: tuple[Site, ...]
    not_due: int
    cursor: str
    last: _Last


class Lister:
    """Reads the source behind `cursor`, until `left` sites are to be triggered (None = all).

    `begin`: where a capped run began; one whose cursor lies before it has started over. It does so after the last site
    if it is `fresh`: has listed nothing to trigger yet.
    """

    def __init__(
        self,
        token: str,
        open_source: Callable[[], Source],
        *,
        cursor: str,
        left: int | None,
        begin: str,
        fresh: bool,
        settings: Settings,
        wake: Callable[[], None],
        log: BoundLogger,
    ) -> None:
        self.token = token
        self._open, self._cursor, self._left, self._begin, self._fresh = open_source, cursor, left, begin, fresh
        self._size, self._settings = settings.batch_size, settings
        self._wake, self._log, self._stop = wake, log, Event()
        self._read: Queue[_Listed | _Last] = Queue(maxsize=_AHEAD)
        Thread(target=self._run, args=(cursor,), name="lister", daemon=True).start()

    @property
    def waiting(self) -> bool:
        """Whether `take` has something."""
        return not self._read.empty()

    def take(self) -> dict[str, Any]:
        """What was read since the last call, as the step script takes it: `append` and `fault`, or nothing."""
        pages: list[dict[str, Any]] = []
        not_due, due, idle = 0, list[tuple[str, int]](), list[str]()
        after, last = self._cursor, _Last()
        while not last:
            try:
                item = self._read.get_nowait()
            except Empty:
                break
            if not isinstance(item, _Listed):
                last = item
                break
            for first in range(0, len(item.taken), self._size):
                sites = [self._noted(site, item.page.now) for site in item.taken[first : first + self._size]]
                pages.append({"s": json.dumps(sites), "n": len(sites)})
            for site in item.page.sites:
                if _due(site, item.page.now):
                    due.append((site.id, site.due or 0))
                else:  # or its source cannot tell any more
                    idle.append(site.id)
            not_due += item.not_due
            self._cursor, last = item.cursor, item.last
        append = {"after": after, "cursor": self._cursor, "pages": pages, "not_due": not_due, "due": due, "idle": idle}
        if "fault" in last:
            return {"append": append, **last}
        return {"append": append | last} if self._cursor != after or last else {}

    def _noted(self, site: Site, now: int | None) -> list[object]:
        """A site as a page keeps it: [id, URL], and `now` where the events due by then are to be verified."""
        verify = self._settings.verify is not False and _due(site, now)
        return [site.id, site.url, now] if verify else [site.id, site.url]

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

    def _list(self, source: Source, cursor: str) -> _Listed | _Last:
        """The last page comes with the end: its cursor may be that of a page before, which `take` could not tell."""
        left, begin, taken = self._left, self._begin, tuple[Site, ...]()
        for start in (cursor, "") if self._fresh and cursor >= begin != "" else (cursor,):
            for page in source.pages(start, self._size):
                if left == 0:  # an earlier lister took them all and could not say so
                    return _capped_end(source, cursor)
                passed = tuple(filters.sites_after(page.sites))
                if start < begin:  # what lies behind was seen at first
                    passed = tuple(site for site in passed if site.key <= begin)
                due = tuple(site for site in passed if self._wanted(site, page.now))
                taken = _capped(due, left)
                cursor = page.cursor if len(taken) == len(due) else max(site.key for site in taken)
                not_due = sum(site.key <= cursor for site in passed) - len(taken)
                listed = _Listed(page._replace(sites=passed), taken, not_due, cursor, {})
                if left is not None:
                    left -= len(taken)
                if left == 0:
                    return listed._replace(last=_capped_end(source, cursor))
                if start < begin <= cursor:
                    return listed._replace(last=_end(source, "", 0))
                if not self._put(listed):
                    return {}
            if left != self._left:
                break
        return _end(source, "", 0)

    def _wanted(self, site: Site, now: int | None) -> bool:
        return self._settings.due_only is False or site.due is None or _due(site, now)

    def _log_problems(self, source: Source) -> None:
        if self._stop.is_set():
            return
        found = [f"{problem.where}: {problem.text}" for problem in source.problems.first] + source.warnings
        if self._settings.due_only and not source.knows_due:
            found.append("ALL_SITES_CRON_DUE_ONLY=true, but this source knows no due times: every site is triggered")
        for problem in found[:LOGGED_LINES]:
            self._log.warning("site list", problem=problem)
        if (more := source.problems.count + len(source.warnings) - LOGGED_LINES) > 0:
            self._log.warning("site list has more problems", not_shown=more)

    def _put(self, item: _Listed | _Last) -> bool:
        while not self._stop.is_set():
            try:
                self._read.put(item, timeout=0.2)
            except Full:
                continue
            self._wake()
            return True
        return False


def _due(site: Site, now: int | None) -> bool:
    return site.due is not None and now is not None and site.due <= now


def _end(source: Source, goes_on: str, remaining: int | None) -> _Last:
    """The listing is complete: the next capped run goes on behind `goes_on`; `remaining` sites lie there."""
    left = "" if remaining is None else remaining
    return {"ended": True, "goes_on": goes_on, "remaining": left, "problems": source.problems.count}


def _capped_end(source: Source, cursor: str) -> _Last:
    remaining = source.remaining(cursor)
    return _end(source, "" if remaining == 0 else cursor, remaining)


def _capped(sites: tuple[Site, ...], left: int | None) -> tuple[Site, ...]:
    """At most `left` of a page: the first by key, in the order a filter gave them, so that no site starves."""
    first = set(sorted(sites, key=lambda site: site.key)[:left])
    return tuple(site for site in sites if site in first)
