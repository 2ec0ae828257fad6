"""The run record: what is known of one pass over the sites (CONTRACT sections 1 and 5)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from redis import Redis

from jobs import keys
from jobs.errors import RunNotFound
from jobs.outcomes import ERRORS, Outcome

FINAL = frozenset({"succeeded", "partial", "failed", "cancelled"})
VERIFIED = ("verified", "working", "stuck", "unknown")
SHOWN_FAILURES = 100


class Failure(NamedTuple):
    """A site that was not dispatched. `outcome`: failed, timeout or skipped. `detail`: text for a person."""

    site_id: str
    url: str
    outcome: str
    reason: str | None
    detail: str


@dataclass(frozen=True)
class Run:
    """One run as Redis has it. Times are Unix milliseconds, None while they have not come.

    `sites`: public sites listed so far; all of them once `all_listed`. `counts`: sites by outcome.
    `remaining`: public sites behind a capped run's last one, None when the source cannot tell.
    `verification`: `pending` or `done` with the sites of each `verified` state; None where nothing was to be verified.
    `mode`: sync, redis, deferred, cli, process-queue or schedule. `by`: the token's name, `cli`, `clock`, …
    """

    id: str
    status: str
    mode: str
    by: str
    queued_ms: int
    started_ms: int | None
    ended_ms: int | None
    sites: int
    all_listed: bool
    batches: int
    batches_done: int
    counts: Mapping[Outcome, int]
    verification: str | None
    verified: Mapping[str, int]
    crashes: int
    retries: int
    bad_entries: int
    remaining: int | None
    reason: str
    message: str
    failures: tuple[Failure, ...] = ()
    failures_total: int = 0

    @property
    def final(self) -> bool:
        """Whether the walk has ended."""
        return self.status in FINAL

    @property
    def count(self) -> int:
        """Public sites this run has dealt with, `not_due` included."""
        return sum(self.counts.values())

    def total(self, *kinds: str) -> int:
        """Sites whose outcome is of one of these kinds."""
        return sum(n for outcome, n in self.counts.items() if outcome.kind in kinds)

    @property
    def errors(self) -> int:
        """Failed sites and those skipped because their host was down."""
        return sum(self.counts.get(outcome, 0) for outcome in ERRORS)

    @property
    def figures(self) -> dict[str, int]:
        """What every view of a run has; `remaining` where it is known."""
        figures = {"count": self.count, "dispatched": self.total("dispatched"), "skipped": self.total("skipped")}
        figures |= {"timeouts": self.total("timeout"), "errors": self.errors}
        return figures if self.remaining is None else figures | {"remaining": self.remaining}


def parse(run_id: str, record: Mapping[bytes, bytes], failures: Mapping[bytes, bytes] | int = 0) -> Run:
    """A run from its two hashes, or the length of the second; raises RunNotFound when the first is empty."""
    if not record:
        raise RunNotFound(f"No run {run_id!r} is known; records are kept for a week by default.")
    fields = {name.decode(): value.decode() for name, value in record.items()}
    kept = {} if isinstance(failures, int) else failures
    found = [Failure(site.decode(), *json.loads(text)) for site, text in kept.items()]
    found.sort(key=lambda failure: (failure.outcome != "failed", failure.site_id.zfill(20)))

    def figure(name: str) -> int | None:
        return int(fields[name]) if fields.get(name) else None

    return Run(
        id=run_id,
        status=fields["status"],
        mode=fields.get("mode", ""),
        by=fields.get("by", ""),
        queued_ms=int(fields["queued_ms"]),
        started_ms=figure("started_ms"),
        ended_ms=figure("ended_ms"),
        sites=figure("sites") or 0,
        all_listed=fields.get("listed") == "1",
        batches=figure("pages") or 0,
        batches_done=figure("done") or 0,
        counts={outcome: int(fields[f"c:{outcome}"]) for outcome in Outcome if f"c:{outcome}" in fields},
        verification=fields.get("verification"),
        verified={state: figure(f"v:{state}") or 0 for state in VERIFIED},
        crashes=figure("crashes") or 0,
        retries=figure("retries") or 0,
        bad_entries=figure("bad_entries") or 0,
        remaining=figure("remaining") if figure("cap") else None,
        reason=fields.get("reason", ""),
        message=fields.get("message", ""),
        failures=tuple(found),
        failures_total=failures if isinstance(failures, int) else len(found),
    )


def read(redis: Redis, run_id: str) -> Run:
    """The record of a run; raises RunNotFound."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.hgetall(keys.run(run_id))
    pipeline.hgetall(keys.failures(run_id))
    return parse(run_id, *pipeline.execute())
