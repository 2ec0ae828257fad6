"""The sites of the demo network: WordPress core's rules for wp-cron.php, and a count of what really ran.

The rules are those of core's wp-cron.php, measured on a real network: a call that breaks one is answered like
any other, and the site's events stay due. So a wrong caller shows as sites that did not run, never as an error.
"""

import csv
import io
import json
import random
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

LOCK_SECONDS = 60  # core's WP_CRON_LOCK_TIMEOUT: how long `doing_cron` keeps other callers out
COLUMNS = ("blog_id", "url", "public", "archived", "deleted", "spam")

Later = Callable[..., object]
"""`loop.call_later`: seconds, function, its arguments."""


class Behaviour(StrEnum):
    """How a site answers. Its events run only where the answer is 200."""

    OK = "ok"
    ERROR500 = "error500"
    BUSY503 = "busy503"  # 503 with Retry-After for the first `busy_calls` calls since arming
    NOT_FOUND = "404"
    RESET = "reset"  # RST once the request is read
    HANG = "hang"  # never answers
    HUGE = "huge"  # 200 with a body of 64 MiB
    HUGE_CHUNKED = "huge_chunked"
    REDIRECT = "redirect"  # 302 to `redirect_to`, or to an unknown path of another host of the network
    REDIRECT_HTTPS = "redirect_https"  # 301 to the same host's TLS port, where it is OK
    GARBAGE = "garbage"  # an answer that is not HTTP
    DEAD = "dead"  # nobody listens on its port; has to be set before the network starts


@dataclass(slots=True, eq=False)
class DemoSite:
    """One site. `port` 0 becomes the network's own when it starts, and `host` where its address does not exist here.

    `path` starts and ends with a slash. `latency_ms` passes before the answer (the wait for a PHP worker: who hangs
    up meanwhile has triggered nothing), `event_ms` with each event after it. `due`: events waiting, `ran`: events
    that ended, `calls`: requests for its wp-cron.php, `locked_at`: its `doing_cron`, by the network's clock.
    """

    id: int
    host: str
    port: int = 0
    path: str = "/"
    behaviour: Behaviour = Behaviour.OK
    scheme: str = "http"
    latency_ms: float = 0
    event_ms: float = 0
    busy_calls: int = 1
    retry_after: int = 1
    redirect_to: str = ""
    public: bool = True
    archived: bool = False
    deleted: bool = False
    spam: bool = False
    armed: int = field(default=1, init=False)
    due: int = field(default=1, init=False)
    ran: int = field(default=0, init=False)
    calls: int = field(default=0, init=False)
    locked_at: float | None = field(default=None, init=False)
    arming: int = field(default=0, init=False)

    @property
    def url(self) -> str:
        """Its siteurl: no slash at the end."""
        return f"{self.scheme}://{netloc(self.scheme, self.host, self.port)}{self.path[:-1]}"

    @property
    def next_due(self) -> int | None:
        """Unix seconds of its next event: a minute ago while any is due, else nothing is scheduled."""
        return int(time.time()) - 60 if self.due else None

    @property
    def wanted(self) -> bool:
        """Public, and none of the flags that exclude a site."""
        return self.public and not (self.archived or self.deleted or self.spam)

    def arm(self, events: int) -> None:
        """Make `events` events due; forget counts and lock. An event still under way is no longer counted."""
        self.arming += 1
        self.armed = self.due = events
        self.ran = self.calls = 0
        self.locked_at = None

    def run_due_events(self, now: float, later: Later) -> None:
        """Nothing if nothing is due or the lock is younger than 60 s; else every due event, one after another."""
        if self.due and (self.locked_at is None or now - self.locked_at >= LOCK_SECONDS):
            self.locked_at = now
            self._run_next(now, self.arming, later)

    def _run_next(self, lock: float, arming: int, later: Later) -> None:
        while self.due:
            self.due -= 1  # core unschedules an event before it runs it
            if self.event_ms:
                later(self.event_ms / 1000, self._event_ended, lock, arming, later)
                return
            self.ran += 1
        self.locked_at = None

    def _event_ended(self, lock: float, arming: int, later: Later) -> None:
        if arming == self.arming:
            self.ran += 1
            if self.locked_at == lock:  # else another call has taken the lock over, and core's loop ends
                self._run_next(lock, arming, later)


class Call(NamedTuple):
    """A request for a wp-cron.php: the site it reached, how many calls that site has had, whether events may run."""

    site: DemoSite | None
    number: int
    may_run: bool


class DemoSites:
    """All sites of a network, by id and by where they are, and the counts since they were last armed."""

    def __init__(self, sites: Iterable[DemoSite]) -> None:
        self.all = sorted(sites, key=lambda site: site.id)
        self.by_id = {site.id: site for site in self.all}
        if len(self.by_id) < len(self.all):
            raise ValueError("two sites have the same id")
        self.places: dict[str, dict[str, DemoSite]] = {}
        self.calls = self.wrong_calls = self.excluded_called = 0

    def index(self, tls_port: int) -> None:
        """Learn which Host header and path lead where, once ports are known (`tls_port` 0: no TLS)."""
        self.places = {}
        for site in self.all:
            places = {netloc(site.scheme, site.host, site.port)}
            if tls_port:
                places.add(netloc("https", site.host, tls_port))
            for place in places:
                self.places.setdefault(place, {}).setdefault(site.path, site)

    def called(self, host: str, directory: str, query: str, has_body: bool) -> Call:
        """Count a request for `{directory}wp-cron.php` and judge it as core does.

        A body makes core die; a `doing_wp_cron` that PHP does not take as empty must equal the lock's value, which no
        outside caller knows; an unknown path reaches the host's main site; a wrong Host header reaches nobody.
        """
        here = self.places.get(host.lower(), {})
        site = here.get(directory)
        may_run = not has_body and not doing_wp_cron(query)
        self.calls += 1
        self.wrong_calls += site is None or not may_run
        site = site or here.get("/")
        if site is None:
            return Call(None, 0, False)
        site.calls += 1
        self.excluded_called += not site.wanted
        return Call(site, site.calls, may_run)

    def arm(self, events: int = 1) -> None:
        """Make every site due with so many events; clear counts and locks."""
        self.calls = self.wrong_calls = self.excluded_called = 0
        for site in self.all:
            site.arm(events)

    def stats(self) -> dict[str, int]:
        """Counts since arming. `ran_sites`: wanted sites of which every armed event has run."""
        wanted = [site for site in self.all if site.wanted]
        return {
            "public_sites": len(wanted),
            "due_sites": sum(site.due > 0 for site in wanted),
            "ran_sites": sum(site.ran >= site.armed > 0 for site in wanted),
            "events_run": sum(site.ran for site in self.all),
            "events_run_twice": sum(max(0, site.ran - site.armed) for site in self.all),
            "excluded_called": self.excluded_called,
            "wrong_calls": self.wrong_calls,
            "calls": self.calls,
        }

    def by_site(self) -> dict[str, dict[str, int]]:
        """id → calls, events that ran, events still due."""
        return {str(site.id): {"calls": site.calls, "ran": site.ran, "due": site.due} for site in self.all}

    def rows(self) -> list[tuple[str, ...]]:
        """What `wp site list --fields=blog_id,url,public,archived,deleted,spam` prints: every site, text only."""
        return [
            (str(s.id), s.url + "/", *(str(int(flag)) for flag in (s.public, s.archived, s.deleted, s.spam)))
            for s in self.all
        ]

    def csv(self) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *self.rows()])
        return text.getvalue()

    def json(self) -> str:
        return json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in self.rows()])

    def txt(self) -> str:
        return "".join(f"{site.url}\n" for site in self.all if site.wanted)

    def feed(self, after: int, limit: int, *, dated: bool = False) -> dict[str, Any]:
        """A page of the JSON feed: at most `limit` wanted sites with ids above `after`; `next` is null on the last.

        `dated`: with due times, as the companion feed has them.
        """
        page: list[DemoSite] = []
        for position in range(bisect_right(self.all, after, key=lambda site: site.id), len(self.all)):
            if self.all[position].wanted:
                page.append(self.all[position])
            if len(page) > limit:
                break
        sites = [{"id": site.id, "url": site.url} | ({"next_due": site.next_due} if dated else {}) for site in page]
        following = page[limit - 1].id if len(page) > limit else None
        now = {"now": int(time.time())} if dated else {}
        return {"version": 1, **now, "sites": sites[:limit], "next": following}

    def states(self, ids: Iterable[int], now: float) -> dict[str, Any]:
        """The schedules of these sites. `now`: of the clock that locks are kept by."""
        sites = [self.by_id[site_id] for site_id in ids if site_id in self.by_id]
        held = {site.id: time.time() - (now - site.locked_at) for site in sites if site.locked_at is not None}
        states = [{"id": site.id, "next_due": site.next_due, "locked": held.get(site.id, 0)} for site in sites]
        return {"version": 1, "now": int(time.time()), "states": states}


def netloc(scheme: str, host: str, port: int) -> str:
    """What a client puts into the Host header: IPv6 in brackets, no default port."""
    name = f"[{host}]" if ":" in host else host.lower()
    return name if port == {"http": 80, "https": 443}[scheme] else f"{name}:{port}"


def doing_wp_cron(query: str) -> bool:
    """Whether PHP's `empty($_GET['doing_wp_cron'])` is false: "" and "0" are empty, the last of several counts."""
    if query in ("", "doing_wp_cron"):
        return False
    return dict(parse_qsl(query, keep_blank_values=True)).get("doing_wp_cron", "") not in ("", "0")


def plain_sites(count: int, addresses: Sequence[str], latency_ms: float = 0, event_ms: float = 0) -> list[DemoSite]:
    """`count` public sites that all answer well, spread over the addresses: `/` first on each, then `/site-06/` …"""
    return [
        DemoSite(
            id=number,
            host=addresses[(number - 1) % len(addresses)],
            path="/" if number <= len(addresses) else f"/site-{number:02d}/",
            latency_ms=latency_ms,
            event_ms=event_ms,
        )
        for number in range(1, count + 1)
    ]


def standard_sites(public: int, addresses: Sequence[str], seed: int) -> list[DemoSite]:
    """The bundled network: `public` public sites, nine of them with the troubles of real ones, and eight excluded."""
    addresses = addresses[:public]
    sites = plain_sites(public + len(_EXCLUDED), addresses)
    others = sites[len(addresses) :]  # an address's main site stays as it is
    random.Random(seed).shuffle(others)  # noqa: S311 - which site has which trouble is no secret
    for site, (name, value) in zip(others, _EXCLUDED + _TROUBLES, strict=False):
        setattr(site, name, value)
    return sites


_EXCLUDED: tuple[tuple[str, bool], ...] = (("public", False), ("archived", True), ("deleted", True), ("spam", True)) * 2
_TROUBLES: tuple[tuple[str, object], ...] = (
    *(("latency_ms", milliseconds) for milliseconds in (300, 900, 2000)),
    *(("behaviour", Behaviour(name)) for name in ("error500", "busy503", "reset", "redirect", "dead", "hang")),
)
