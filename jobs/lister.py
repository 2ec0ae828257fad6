"""The listing: whoever holds a run's lister lease reads the site source, a little ahead of the walk.

The source is read in a thread, so that the first trigger leaves before the listing ends, a slow source does
not hold up the requests in flight, and memory stays flat.
"""

import json
from collections.abc import Callable
from contextlib import closing
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, NamedTuple

import structlog

from jobs.errors import FilterError, SettingsError, SourceError
from jobs.sources import SitePage, Source

_AHEAD = 4  # pages read before the walk asks for them
_REASONS: dict[type[Exception], str] = {SourceError: "source", FilterError: "filter"}

log = structlog.get_logger("all_sites_cron.walker")


class _End(NamedTuple):
    """The listing is complete: the next capped run goes on behind `goes_on`; `remaining` sites lie there."""

    goes_on: str
    remaining: int | None


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
    ) -> None:
        self.token = token
        self._open, self._cursor, self._left, self._size, self._fresh = open_source, cursor, left, size, fresh
        self._wake, self._stop = wake, Event()
        self._read: Queue[SitePage | _End | Exception] = Queue(maxsize=_AHEAD)
        self._problems: list[str] = []
        self._problem_count = 0
        self._thread = Thread(target=self._run, name="lister", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> bool:
        """Whether `take` has something."""
        return not self._read.empty()

    def take(self) -> dict[str, Any]:
        """What was read since the last call, as the step script takes it: `append`, or `fault`, or nothing."""
        append: dict[str, Any] = {"after": self._cursor, "pages": [], "cursor": self._cursor}
        while True:
            try:
                item = self._read.get_nowait()
            except Empty:
                break
            if isinstance(item, Exception):
                reason = _REASONS.get(type(item), "internal")
                return {"append": append, "fault": {"reason": reason, "message": str(item)[:500]}}
            if isinstance(item, _End):
                left = "" if item.remaining is None else item.remaining
                append |= {"ended": True, "goes_on": item.goes_on, "remaining": left, "problems": self._problem_count}
            else:
                sites = json.dumps([[site.id, site.url] for site in item.sites])
                append["pages"].append({"s": sites, "n": len(item.sites)})
                append["cursor"] = self._cursor = item.cursor
        return {"append": append} if append["pages"] or "ended" in append else {}

    def problems(self) -> list[str]:
        """The source's complaints about single entries since the last call, for the log."""
        found, self._problems = self._problems, []
        return found

    def close(self) -> None:
        """Stop reading; a read under way ends by itself."""
        self._stop.set()

    def _run(self) -> None:
        try:
            with closing(self._open()) as source:
                try:
                    end = self._list(source)
                finally:
                    self._problem_count = source.problems.count
                    self._problems = [f"{problem.where}: {problem.text}" for problem in source.problems.first]
                    self._problems += source.warnings
                self._put(end)
        except (SourceError, FilterError) as error:
            self._put(error)
        except SettingsError as error:
            self._put(SourceError(str(error)))
        except Exception:  # the run must end, whatever it was that went wrong in this thread
            log.exception("the listing ended with an error")
            self._put(RuntimeError("the site source failed; the service's log says more"))

    def _list(self, source: Source) -> _End | SourceError:
        cursor = self._cursor
        seen = False
        starts = (cursor, "") if self._left is not None and cursor and self._fresh else (cursor,)
        for start in starts:
            for page in source.pages(start, self._size):
                sites = page.sites if self._left is None else page.sites[: self._left]
                cursor = page.cursor if len(sites) == len(page.sites) else sites[-1].key
                seen = True
                if not self._put(SitePage(sites, cursor)):
                    return SourceError("the listing was stopped")
                if self._left is not None:
                    self._left -= len(sites)
                    if self._left <= 0:
                        remaining = source.remaining(cursor)
                        return _End("" if remaining == 0 else cursor, remaining)
            if seen:
                break
        return _End("", 0)

    def _put(self, item: "SitePage | _End | Exception") -> bool:
        while not self._stop.is_set():
            try:
                self._read.put(item, timeout=0.2)
            except Full:
                continue
            self._wake()
            return True
        return False
