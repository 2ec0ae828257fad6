"""`GET /metrics`: the figures of all web processes and workers as Prometheus text (CONTRACT section 7)."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, TypeAlias, cast

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.asyncio import Redis
from starlette.responses import Response

from jobs import __version__, keys, rq_names
from jobs.metrics import REQUEST_BUCKETS, RUN_BUCKETS
from jobs.outcomes import Outcome
from jobs.runs import FINAL
from service.rest import Call

PREFIX = "all_sites_cron_"
Labelled: TypeAlias = type[CounterMetricFamily] | type[GaugeMetricFamily]
TEXT = "text/plain; version=0.0.4; charset=utf-8"


async def metrics(call: Call) -> Response:
    """Pipelines of reads, each bounded whatever the number of sites. Ages are by this process's clock."""
    settings, now = call.web.settings, time.time()
    queue = rq_names.queue(settings.redis_queue_key)
    pipeline = call.web.redis.pipeline(transaction=False)
    pipeline.hgetall(keys.METRICS)
    pipeline.hgetall(keys.LEGACY_USES)
    pipeline.zcount(keys.DUE, "-inf", f"({now - settings.overdue_after}")
    pipeline.zrange(keys.DUE, 0, 0, withscores=True)
    pipeline.llen(queue)
    pipeline.lrange(queue, 0, 0)
    *replies, first = await pipeline.execute()
    for job in first:
        pipeline.hget(rq_names.JOB.encode() + job, "enqueued_at")
    enqueued = [each if isinstance(each, bytes) else None for each in await pipeline.execute(raise_on_error=False)]
    replies += [enqueued, await workers(call.web.redis)]
    return Response(generate_latest(Figures(now, *replies)), media_type=TEXT)


async def workers(redis: Redis) -> Mapping[str, int]:
    """How many RQ workers listen, `busy` and `idle`; of one that died there is no state: it expires.

    No SORT with GET, which counts as a write: a full or read-only Redis would refuse it.
    """
    pipeline = redis.pipeline(transaction=False)
    for name in cast(list[bytes], await redis.zrange(keys.WORKERS, 0, -1)):
        pipeline.hget(rq_names.WORKER.encode() + name, "state")
    states = [state for state in await pipeline.execute(raise_on_error=False) if isinstance(state, bytes)]
    return {"busy": (busy := states.count(b"busy")), "idle": len(states) - busy}


@dataclass(frozen=True)
class Figures(Collector):
    """The replies of Redis to one scrape, at `now` (Unix seconds)."""

    now: float
    stored: Mapping[bytes, bytes]
    legacy: Mapping[bytes, bytes]
    overdue: int
    longest_due: Sequence[tuple[bytes, float]]
    waiting: int
    enqueued: Sequence[bytes | None]
    workers: Mapping[str, int]

    def collect(self) -> Iterator[Metric]:
        """Every metric; what has not happened yet is 0."""
        outcomes = {outcome.name.lower(): self._number(f"requests:{outcome}") for outcome in Outcome}
        del outcomes["not_due"]  # nobody was called
        due = self.longest_due[0][1] if self.longest_due else self.now

        runs = {status: self._number(f"runs:{status}") for status in sorted(FINAL)}
        yield _labelled(CounterMetricFamily, "runs", "Runs that ended.", "status", runs)
        yield _labelled(CounterMetricFamily, "site_requests", "Sites by their outcome.", "outcome", outcomes)
        yield self._histogram("site_request_duration_seconds", "One answer, or none.", "request", REQUEST_BUCKETS)
        yield self._histogram("run_duration_seconds", "From a run's start to its end.", "run", RUN_BUCKETS)
        yield _gauge("sites_overdue", "Sites due for longer than OVERDUE_AFTER.", self.overdue)
        yield _gauge("oldest_due_age_seconds", "How long the site that waits longest is due.", self._since(due))
        yield _gauge("queue_jobs", "Jobs that wait for a worker.", self.waiting)
        yield _gauge("queue_oldest_job_age_seconds", "How long the first of them waits.", self._since(self._enqueued()))
        yield _labelled(GaugeMetricFamily, "workers", "RQ workers that listen.", "state", self.workers)
        success = self._number("last_success_ms") / 1000
        yield _gauge("last_success_timestamp_seconds", "When a run last ended as succeeded; 0: never.", success)
        yield _labelled(GaugeMetricFamily, "build_info", "Always 1.", "version", {__version__: 1})
        if self.legacy:
            uses = {name.decode(): float(uses.split()[0]) for name, uses in self.legacy.items()}
            yield _labelled(CounterMetricFamily, "legacy_uses", "Uses of legacy names.", "name", uses)

    def _number(self, field: str) -> float:
        return float(self.stored.get(field.encode(), 0))

    def _since(self, then: float) -> float:
        return max(0.0, self.now - then)

    def _enqueued(self) -> float:
        with suppress(ValueError):  # anybody may have put anything into the queue
            return datetime.fromisoformat((self.enqueued[0] or b"").decode()).timestamp() if self.enqueued else self.now
        return self.now

    def _histogram(self, name: str, text: str, field: str, buckets: Sequence[str]) -> Metric:
        counts = accumulate(self._number(f"{field}_seconds:{bucket}") for bucket in buckets)
        pairs: Any = list(zip(buckets, counts, strict=True))
        return HistogramMetricFamily(PREFIX + name, text, pairs, self._number(f"{field}_seconds:sum"))


def _labelled(kind: Labelled, name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = kind(PREFIX + name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value)
