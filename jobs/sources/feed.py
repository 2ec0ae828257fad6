"""Sites from an http(s) address: a feed paged by id, or a complete list as JSON, CSV or text (CONTRACT section 5)."""

import json
from collections.abc import Mapping, Sequence
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import httpx

from jobs.addresses import AddressGuard
from jobs.errors import OutboundError, SettingsError, SourceError
from jobs.outbound import Outbound, tls_context
from jobs.plain_text import plain
from jobs.sources.entries import LATEST, Kind, due_of, integer, masked
from jobs.sources.listing import MAX_BYTES, Listing, State

_VERSION = 1
_MAX_REDIRECTS = 3
_HEADERS = {"Accept": "application/json"}
_BLANK = b"\xef\xbb\xbf \t\r\n"  # the bytes of a BOM, and white space


class FeedSource(Listing):
    """`GET url?after=ID&limit=SIZE`, with FEED_TOKEN as bearer token.

    A page is `{"version": 1, "sites": [{"id": 1, "url": "http://…"}, …], "next": ID or null}`, its ids above `after`.
    With `"now"` (Unix seconds) it knows due times: a site's `"next_due"` (Unix seconds, null = nothing scheduled),
    and `GET url?ids=1,2` is answered `{"version": 1, "now": …, "states": [{"id": 1, "next_due": …, "locked": …}, …]}`.
    An array, CSV or text is the complete list, as in a file, and is asked for once.
    Raises SettingsError for what cannot be asked.
    """

    deadline = 30.0  # seconds for one answer
    most_pages = 100_000
    page_bytes = 16 * 1024 * 1024
    list_bytes = MAX_BYTES  # of a complete list

    def __init__(self, url: str, *, token: str | None, guard: AddressGuard, verify: bool | str = True) -> None:
        try:
            self._url = httpx.URL(url.strip())
        except httpx.InvalidURL:
            raise SettingsError(f"ALL_SITES_CRON_SITES is {masked(url)}, which is not a URL") from None
        if self._url.userinfo or not self._url.host:
            need = "a host name, and no user name or password (ALL_SITES_CRON_FEED_TOKEN is sent as bearer token)"
            raise SettingsError(f"ALL_SITES_CRON_SITES is {masked(url)}; allowed is {need}")
        if token and not (token.isascii() and token.isprintable()):
            raise SettingsError("ALL_SITES_CRON_FEED_TOKEN has a character that an HTTP header may not have")
        self._token, self._asked = token, 0
        self._outbound = Outbound(guard, tls_context(verify), self.deadline, _MAX_REDIRECTS)
        super().__init__("feed")

    def _read(self, after: str, size: int) -> str | None:
        start = int(after) if after.isdecimal() else 0  # 0 for a key of another source, too
        self._asked += 1
        if self._asked > self.most_pages:
            raise SourceError(f"feed: has more than {self.most_pages} pages")
        with SpooledTemporaryFile(max_size=1024 * 1024) as body:
            answer = self._ask(body, after=start, limit=size)
            if isinstance(answer, str):
                self._read_list(body, answer)
                return None
        return self._read_page(answer, start)

    def states(self, ids: Sequence[str]) -> tuple[int, Mapping[str, State]]:
        """Unlike in a page, one wrong entry spoils the answer: nobody would hear of it."""
        asked = [site for site in ids if site.isdecimal()]
        if not asked or self._complete:
            return 0, {}
        with SpooledTemporaryFile(max_size=1024 * 1024) as body:
            page = self._ask(body, ids=",".join(asked))
        if isinstance(page, str) or not isinstance(entries := page.get("states"), list):
            return 0, {}  # a feed that knows only pages
        found = dict(map(_state, entries))
        return _now(page), {site: found[site] for site in asked if site in found}

    def _read_page(self, page: dict[str, Any], start: int) -> str | None:
        if not isinstance(entries := page.get("sites"), list):
            raise SourceError('feed: the answer has no list "sites"')
        where = f"feed page after={start}"
        self._now = None if page.get("now") is None else _now(page)
        self.knows_due = self.knows_due or self._now is not None
        self._fill(where, ((f"entry {n}", entry) for n, entry in enumerate(entries, 1)), numbered=True)
        low, high = self._index.execute("SELECT MIN(key), MAX(key) FROM sites").fetchone()
        if low and int(low) <= start:
            raise SourceError(f"{where}: id {int(low)} is not above {start}; ids must rise")
        if page.get("next") is None:
            return None
        following, last = integer("feed: next", page["next"]), int(high or 0)
        if following <= start or following < last:
            raise SourceError(f"feed: loops; the page after={start} with ids up to {last} has next={following}")
        return str(following).zfill(20)

    def _ask(self, body: IO[bytes], **parameters: str | int) -> Kind | dict[str, Any]:
        """What a page or states say; of a list only its kind, with all of it in `body`."""
        headers = _HEADERS | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        url, start = self._url.copy_merge_params(parameters), b""  # of the answer, without white space before it
        try:
            with self._outbound.answering("GET", url, headers) as response:
                if (status := response.status_code) != 200:
                    hint = "; is ALL_SITES_CRON_FEED_TOKEN right?" if status in (401, 403) else ""
                    raise SourceError(f"feed: answer {status}{hint}")
                for chunk in response.iter_raw():
                    body.write(chunk)
                    start = start or chunk.lstrip(_BLANK)[:100]
                    most = self.page_bytes if start[:1] in (b"", b"{") else self.list_bytes
                    if body.tell() > most:
                        raise SourceError(f"feed: the answer is larger than {most} bytes")
        except OutboundError as error:
            raise SourceError(f"feed: {error}") from None
        body.seek(0)
        media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if start[:1] in (b"{", b"["):
            return _loaded(body) if start[:1] == b"{" else "json"
        if media in ("text/csv", "text/plain"):
            return "csv" if media == "text/csv" or self._url.path.endswith(".csv") else "txt"
        shown = plain(start.decode(errors="replace"), 80)
        raise SourceError(f'feed: the answer is not JSON but "{plain(media, 80)}": {shown}')


def _loaded(body: IO[bytes]) -> dict[str, Any]:
    """What starts as a JSON object does, in the version that is read here."""
    try:
        page: dict[str, Any] = json.load(body)
    except (ValueError, RecursionError):
        raise SourceError("feed: the answer is not complete, correct JSON") from None
    if (version := page.get("version")) != _VERSION:
        theirs = plain(repr(version), 40)
        raise SourceError(f"feed: answers in version {theirs} of the format; this program reads version {_VERSION}")
    return page


def _now(page: Mapping[str, Any]) -> int:
    if not 0 <= (now := integer("feed: now", page.get("now"))) < LATEST:
        raise SourceError(f"feed: now is {now}, not Unix seconds")
    return now


def _state(entry: object) -> tuple[str, State]:
    match entry:
        case {"id": int(site), "next_due": due, "locked": int() | float() as locked} if 0 <= locked < LATEST:
            return str(site), State(due_of(due), locked)
    raise SourceError(f"feed: a state is {plain(repr(entry), 80)}, not a site's id, next_due and locked")
