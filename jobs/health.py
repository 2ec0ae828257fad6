"""Cron health: what is known of one site, kept in a few bytes by the scripts (jobs/lua/health.lua)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from redis import Redis

from jobs import filters, keys
from jobs.outcomes import Outcome
from jobs.sources import Source

State = Literal["failing", "overdue", "stuck"]
_INDEXES: dict[State, str] = {"failing": keys.FAILING, "overdue": keys.DUE, "stuck": keys.STUCK}
_PAGE = 1000


@dataclass(frozen=True)
class Health:
    """One site. Times are Unix seconds, None = never or not now.

    `dispatched`: its last trigger that was taken or timed out. `verified`: when all that was due was last seen run.
    `failures`: runs in a row that failed, the first of them at `since`, the last for `reason`: one of an outcome's, or
    `stuck` (its events stayed due after a second trigger). `due`: since when it is due, as last seen.
    """

    site_id: str
    url: str
    dispatched: int | None
    verified: int | None
    failures: int
    since: int | None
    reason: str | None
    due: int | None

    def state(self, now: float, overdue_after: int) -> str:
        """`stuck`, `failing`, `overdue` (due for longer than OVERDUE_AFTER) or `healthy`."""
        if self.failures:
            return "stuck" if self.reason == "stuck" else "failing"
        return "overdue" if self.due is not None and self.due < now - overdue_after else "healthy"


def parse(site_id: str, record: bytes | None, due: float | None) -> Health | None:
    """The health of a site from its record and its score in `due`; None when neither is known."""
    since_due = None if due is None else int(due)
    if record is None:
        return Health(site_id, "", None, None, 0, None, None, since_due) if since_due is not None else None
    dispatched, verified, failures, since, reason, url = record.decode().split(" ", 5)
    dispatch_time, verify_time, since_time = (int(text, 16) or None for text in (dispatched, verified, since))
    why = None if reason == "-" else reason if reason == "stuck" else Outcome(reason).name.lower()
    return Health(site_id, url, dispatch_time, verify_time, int(failures), since_time, why, since_due)


def chosen(state: State, now: int, overdue_after: int) -> tuple[str, str]:
    """How to find the sites of a state: (key of a sorted set, the highest score, in Unix seconds, that counts).

    `overdue` are those due for longer than OVERDUE_AFTER, whatever else is wrong with them.
    """
    return _INDEXES[state], f"({now - overdue_after}" if state == "overdue" else "+inf"


def ask(pipeline: Any, ids: Iterable[str]) -> None:
    """Put the questions about these sites into a pipeline, blocking or not; `answers` reads what it gives."""
    for site_id in ids:
        pipeline.hget(keys.site(site_id), site_id)
        pipeline.zscore(keys.DUE, site_id)


def answers(ids: Sequence[str], replies: Sequence[Any]) -> list[Health]:
    """The health of those of the sites that something is known of."""
    found = (parse(site_id, *replies[2 * n : 2 * n + 2]) for n, site_id in enumerate(ids))
    return [site for site in found if site]


def prune(redis: Redis, source: Source) -> None:
    """Forget the sites that the source no longer lists, or a filter drops; an empty list is taken for a fault.

    Raises SourceError, FilterError.
    """
    if not (listed := {site.id for page in source.pages("", _PAGE) for site in filters.sites_after(page.sites)}):
        return
    for key in redis.scan_iter(f"{keys.SITES}*", count=_PAGE):
        if gone := [site_id for site_id in cast(list[bytes], redis.hkeys(key)) if site_id.decode() not in listed]:
            redis.hdel(key, *gone)
    for index in _INDEXES.values():
        for site_id, _ in redis.zscan_iter(index, count=_PAGE):
            if site_id.decode() not in listed:
                redis.zrem(index, site_id)
