"""Sites from an http(s) address: a feed paged by id, or a complete list as JSON, CSV or text (CONTRACT section 5)."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from jobs.addresses import AddressGuard
from jobs.errors import SettingsError, SourceError
from jobs.sites import Site
from jobs.sources.entries import BadEntry, Kind, integer, site_of
from jobs.sources.fetch import Fetcher
from jobs.sources.index import SiteIndex, SitePage
from jobs.sources.problems import Problems, masked, printable

VERSION = 1


@dataclass(frozen=True)
class FeedLimits:
    """`deadline`: seconds for one whole answer. `page_bytes`, `list_bytes`: size of a page, of a complete list.

    `pages`, `sites`: most of each in one reading.
    """

    deadline: float = 30.0
    page_bytes: int = 16 * 1024 * 1024
    list_bytes: int = 256 * 1024 * 1024
    pages: int = 100_000
    sites: int = 10_000_000


@dataclass
class _Page:
    """What one page says. `cursor`: the key behind it. `good`: an entry was in order, be it of a hidden site."""

    cursor: str
    last: bool = False
    good: bool = False
    sites: list[Site] = field(default_factory=list)


class FeedSource:
    """`GET url?after=ID&limit=SIZE`, with FEED_TOKEN as bearer token.

    A page is `{"version": 1, "sites": [{"id": 1, "url": "http://…"}, …], "next": ID or null}`, ids rising.
    An array, CSV or text is the complete list, as in a file, and is asked for once.
    Raises SettingsError for what cannot be asked.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        guard: AddressGuard,
        verify: bool | str = True,
        limits: FeedLimits | None = None,
    ) -> None:
        try:
            self._url = httpx.URL(url.strip())
        except httpx.InvalidURL:
            raise SettingsError(f"ALL_SITES_CRON_SITES is {masked(url)}, which is not a URL") from None
        if self._url.userinfo or not self._url.host:
            need = "a host name, and no user name or password (ALL_SITES_CRON_FEED_TOKEN is sent as bearer token)"
            raise SettingsError(f"ALL_SITES_CRON_SITES is {masked(url)}; allowed is {need}")
        if token and not (token.isascii() and token.isprintable()):
            raise SettingsError("ALL_SITES_CRON_FEED_TOKEN has a character that an HTTP header may not have")
        self._limits = limits or FeedLimits()
        self._fetcher = Fetcher(token, guard, verify, self._limits.deadline)
        self._index: SiteIndex | None = None
        self._problems = Problems()

    @property
    def problems(self) -> Problems:
        return self._index.problems if self._index else self._problems

    @property
    def warnings(self) -> list[str]:
        return self._index.warnings if self._index else []

    def pages(self, after: str, size: int) -> Iterator[SitePage]:
        from_start, usable, served = not after, False, 0
        for _ in range(self._limits.pages):
            answer = self._index or self._ask(after, size)
            if isinstance(answer, SiteIndex):
                yield from answer.pages(after, size)
                return
            page = self._page(answer, after)
            usable = usable or page.good
            served += len(page.sites)
            if served > self._limits.sites:
                raise SourceError(f"feed: lists more than {self._limits.sites} sites")
            for at in range(0, len(page.sites), size):
                sites = tuple(page.sites[at : at + size])
                yield SitePage(sites, page.cursor if at + size >= len(page.sites) else sites[-1].key)
            if page.last:
                if from_start and not usable and self._problems.count:
                    raise SourceError(f"not one usable site; {self._problems.first[0]}")
                return
            after = page.cursor
        raise SourceError(f"feed: has more than {self._limits.pages} pages")

    def remaining(self, after: str) -> int | None:
        return self._index.remaining(after) if self._index else None

    def close(self) -> None:
        if self._index:
            self._index.close()
            self._index = None
        self._fetcher.close()

    def _ask(self, after: str, size: int) -> SiteIndex | dict[str, Any]:
        kind: Kind | None = None

        def limit(start: bytes, content_type: str) -> int:
            nonlocal kind
            kind = self._kind(start, content_type)
            return self._limits.list_bytes if kind else self._limits.page_bytes

        query = f"after={_number(after)}&limit={size}".encode()
        url = self._url.copy_with(query=self._url.query + b"&" + query if self._url.query else query)
        with tempfile.SpooledTemporaryFile(max_size=1024 * 1024) as body:
            self._fetcher.get(url, body, limit)
            body.seek(0)
            if kind:
                self._index = SiteIndex(body, kind, "feed")
                return self._index
            try:
                page: dict[str, Any] = json.loads(body.read())
            except (ValueError, RecursionError):
                raise SourceError("feed: the answer is not complete, correct JSON") from None
            return page

    def _kind(self, start: bytes, content_type: str) -> Kind | None:
        """None for a page; raises SourceError for an answer that is no list of sites at all."""
        media = content_type.partition(";")[0].strip().lower()
        if start[:1] == b"{":
            return None
        if start[:1] == b"[":
            return "json"
        if media == "text/csv" or (media == "text/plain" and self._url.path.endswith(".csv")):
            return "csv"
        if media == "text/plain":
            return "txt"
        excerpt = printable(start.decode(errors="replace"), 80)
        raise SourceError(f'feed: the answer is not JSON but "{printable(media, 80)}": {excerpt}')

    def _page(self, answer: dict[str, Any], after: str) -> _Page:
        if (version := answer.get("version")) != VERSION:
            theirs = printable(repr(version), 40)
            raise SourceError(f"feed: answers in version {theirs} of the format; this program reads version {VERSION}")
        if not isinstance(entries := answer.get("sites"), list):
            raise SourceError('feed: the answer has no list "sites"')
        page, start, urls = _Page(after), _number(after), set[str]()
        last = start
        for count, entry in enumerate(entries, 1):
            where = f"feed page after={start} entry {count}"
            try:
                site = site_of(entry)
            except BadEntry as error:
                self._problems.add(where, str(error))
                continue
            if site and site.id.startswith("u-"):
                self._problems.add(where, f"{masked(site.url)} has no id")
                continue
            page.good = True
            if not site:
                continue
            if int(site.id) <= last:
                raise SourceError(f"{where}: id {site.id} is not above {last}; ids must rise, from `after` on")
            last = int(site.id)
            if site.url in urls:
                self._problems.add(where, f"{masked(site.url)} is listed twice on this page; the first is kept")
            else:
                urls.add(site.url)
                page.sites.append(site)
        try:
            following = last if answer.get("next") is None else integer("next", answer["next"])
        except BadEntry as error:
            raise SourceError(f"feed: {error}") from None
        page.last = answer.get("next") is None
        if not page.last and (following <= start or following < last):
            raise SourceError(f"feed: loops; the page after={start} with ids up to {last} has next={following}")
        page.cursor = str(following).zfill(20)
        return page


def _number(after: str) -> int:
    """The id that a key is made of; 0 for the start, and for a key of another source."""
    return int(after) if after.isascii() and after.isdigit() else 0
