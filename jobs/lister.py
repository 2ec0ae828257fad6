"""The listing: whoever holds a run's lister lease reads the site source, a little ahead of the walk.

Sites with nothing due are counted here and go no further, where the source knows due times (DUE_ONLY).

The source is read in a thread, so that the first trigger leaves before the listing ends, a slow source does
not hold up the requests in flight, and memory stays flat.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, NamedTuple

from structlog.stdlib import BoundLogger

from jobs import filters
from jobs.errors import FilterError, SettingsError, SourceError
from jobs.log import LOGGED_LINES
from jobs.plain_text import plain
from jobs.settings import Settings
from jobs.sites import Site
from jobs.sources import SitePage, Source

_AHEAD = 4  # pages read before the walk asks for them


class Lease(NamedTuple):
    """What the step script gives to whoever is to list, behind `cursor`, until `left` sites are to be triggered.

    `left`: None = all. `begin`: where a capped run began; one whose cursor lies before it has started over. It does so
    after the last site if it is `fresh`: has listed nothing to trigger yet.
    """

    token: str
    cursor: str
    left: int | None
    begin: str
    fresh: bool


class Listed(NamedTuple):
    """A page of the source. `taken`: its sites that are to be triggered; the others up to its cursor are not due.

    `last`: how the listing ended with it, if it did, as the step script takes it. An end alone has a page without
    sites and cursor.
    """

    page: SitePage
    taken: tuple[Site, ...] = ()
    not_due: int = 0
    last: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


class Lister:
    """Lists in a thread of its own, which calls `wake` when there is something to take."""

    def __init__(
        self, lease: Lease, source: Callable[[], Source], settings: Settings, wake: Callable[[], None], log: BoundLogger
    ) -> None:
        self.token, self._cursor, self._stop = lease.token, lease.cursor, Event()
        self._open, self._settings, self._wake, self._log = source, settings, wake, log
        self._read: Queue[Listed] = Queue(maxsize=_AHEAD)
        Thread(target=self._run, args=(lease,), name="lister", daemon=True).start()

    @property
    def waiting(self) -> bool:
        """Whether `take` has something."""
        return not self._read.empty()

    def take(self) -> dict[str, Any]:
        """What was read since the last call, as the step script takes it: `append` and `fault`, or nothing."""
        pages, due, idle = list[dict[str, Any]](), list[tuple[str, int]](), list[str]()
        not_due, after, last, size = 0, self._cursor, dict[str, Any](), self._settings.batch_size
        while self.waiting and not last:
            page, taken, skipped, last = self._read.get_nowait()
            for first in range(0, len(taken), size):
                sites = [self._noted(site, page.now) for site in taken[first : first + size]]
                pages.append({"s": json.dumps(sites), "n": len(sites)})
            due += [(site.id, site.due or 0) for site in page.sites if _due(site, page.now)]
            idle += [site.id for site in page.sites if not _due(site, page.now)]  # or its source cannot tell any more
            not_due += skipped
            self._cursor = page.cursor or self._cursor
        append = {"after": after, "cursor": self._cursor, "pages": pages, "not_due": not_due, "due": due, "idle": idle}
        if "fault" in last:
            return {"append": append, **last}
        return {"append": append | last} if self._cursor != after or last else {}

    def _noted(self, site: Site, now: int | None) -> list[object]:
        """A site as a page keeps it: [id, URL], and `now` where the events due by then are to be verified."""
        return [site.id, site.url, *([now] if self._settings.verify is not False and _due(site, now) else [])]

    def close(self) -> None:
        """Stop reading; a read under way ends by itself."""
        self._stop.set()

    def _run(self, lease: Lease) -> None:
        try:
            with closing(self._open()) as source:
                try:
                    for listed in listing(source, lease, self._settings):
                        if listed.last or not self._put(listed):
                            break
                finally:  # before the walker hears of the end, which may be the process's
                    if not self._stop.is_set():
                        log_problems(source, self._settings, self._log)
                self._put(listed)
        except FilterError as error:
            self._fail("filter", str(error))
        except (SourceError, SettingsError) as error:
            self._fail("source", str(error))
        except Exception:  # noqa: BLE001 - the run must end, whatever it was that went wrong in this thread
            self._log.exception("the listing ended with an error")
            self._fail("internal", "the site source failed; the service's log says more")

    def _fail(self, reason: str, message: str) -> None:
        self._put(Listed(SitePage((), ""), last={"fault": {"reason": reason, "message": plain(message, 500)}}))

    def _put(self, listed: Listed) -> bool:
        while not self._stop.is_set():
            with suppress(Full):
                self._read.put(listed, timeout=0.2)
                self._wake()
                return True
        return False


def listing(source: Source, lease: Lease, settings: Settings) -> Iterator[Listed]:
    """The source's pages up to the end, which comes with the last of them or alone. Raises SourceError, FilterError."""
    _, cursor, left, begin, fresh = lease
    for start in (cursor, "") if fresh and cursor >= begin != "" else (cursor,):
        for page in source.pages(start, settings.batch_size):
            if left == 0:  # an earlier lister took them all and could not say so
                yield Listed(SitePage((), ""), last=_capped_end(source, cursor))
                return
            passed = tuple(filters.sites_after(page.sites))
            if start < begin:  # what lies behind was seen at first
                passed = tuple(site for site in passed if site.key <= begin)
            due = tuple(
                site for site in passed if settings.due_only is False or site.due is None or _due(site, page.now)
            )
            first = set(sorted(due, key=lambda site: site.key)[:left])  # by key, so that no site starves
            taken = tuple(site for site in due if site in first)  # in the order a filter gave them
            cursor = page.cursor if len(taken) == len(due) else max(site.key for site in taken)
            if left is not None:
                left -= len(taken)
            last = _capped_end(source, cursor) if left == 0 else _end(source) if start < begin <= cursor else {}
            not_due = sum(site.key <= cursor for site in passed) - len(taken)
            yield Listed(SitePage(passed, cursor, page.now), taken, not_due, last)
            if last:  # with its page: the cursor may be that of a page before, which `take` could not tell
                return
        if left != lease.left:
            break
    yield Listed(SitePage((), ""), last=_end(source))


def log_problems(source: Source, settings: Settings, log: BoundLogger) -> None:
    """What is wrong with the list, its first lines."""
    found = source.problems.first + source.warnings
    if settings.due_only and not source.knows_due:
        found.append("ALL_SITES_CRON_DUE_ONLY=true, but this source knows no due times: every site is triggered")
    for problem in found[:LOGGED_LINES]:
        log.warning("site list", problem=problem)
    if (more := source.problems.count + len(source.warnings) - LOGGED_LINES) > 0:
        log.warning("site list has more problems", not_shown=more)


def _due(site: Site, now: int | None) -> bool:
    return site.due is not None and now is not None and site.due <= now


def _end(source: Source, goes_on: str = "", remaining: int | None = 0) -> dict[str, Any]:
    """The listing is complete: the next capped run goes on behind `goes_on`; `remaining` sites lie there."""
    left = "" if remaining is None else remaining
    return {"ended": True, "goes_on": goes_on, "remaining": left, "problems": source.problems.count}


def _capped_end(source: Source, cursor: str) -> dict[str, Any]:
    remaining = source.remaining(cursor)
    return _end(source, "" if remaining == 0 else cursor, remaining)
