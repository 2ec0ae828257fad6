"""Answers: the one place that turns a result or a refusal into JSON or GitHub Actions text (CONTRACT section 2)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from jobs.admission import Admitted
from jobs.errors import AlreadyRunning, CoolingDown, Deactivated, RedisUnavailable, Refused
from jobs.runs import SHOWN_FAILURES, Failure, Run
from service.ga import Kind, command

NAMED_FAILURES = 3
NO_WORKER = "no worker is listening"
QUEUED_FOR_NOBODY = f"Cron job queued to Redis, but {NO_WORKER}"


@dataclass(frozen=True)
class Answer:
    """What a caller gets: `body` as JSON, or with `ga=1` the line `::kind::line`.

    `run_id`: the run it is about, which every such answer names and points to.
    """

    status: int
    body: Mapping[str, Any]
    kind: Kind
    line: str
    run_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def render(self, *, ga: bool, runs_path: str = "") -> Response:
        """The HTTP answer; `runs_path` is where runs are found, `/wp-json/all-sites-cron/v1/runs`."""
        headers = dict(self.headers)
        body = dict(self.body)
        if self.run_id:
            body["run_id"] = self.run_id
            headers["Location"] = f"{runs_path}/{self.run_id}"
        if ga:
            return PlainTextResponse(command(self.kind, self.line), self.status, headers)
        return JSONResponse(body, self.status, headers)


def timestamp() -> str:
    """Now, as the plugin writes it, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")


def counts(run: Run) -> dict[str, Any]:
    """The figures every view of a run has."""
    figures: dict[str, Any] = {
        "count": run.count,
        "dispatched": run.total("dispatched"),
        "skipped": run.total("skipped"),
        "timeouts": run.total("timeout"),
        "errors": run.errors,
    }
    return figures if run.remaining is None else figures | {"remaining": run.remaining}


def _failed(run: Run) -> Answer:
    status, code = {
        "source": (502, "SOURCE_ERROR"),
        "filter": (500, "FILTER_ERROR"),
    }.get(run.reason, (500, "INTERNAL_ERROR"))
    body = {"success": False, "error_code": code, "message": run.message, "timestamp": timestamp()} | counts(run)
    return Answer(status, body, "error", run.message, run.id)


def partial_message(errors: int, failures: Iterable[Failure]) -> str:
    """The plugin's sentence: the number of errors and the first three."""
    failed = [f for f in failures if f.outcome == "failed" or f.reason == "host_down"]
    named = "; ".join(f"Error for {f.url}: {f.detail or f.reason}" for f in failed[:NAMED_FAILURES])
    more = "..." if errors > NAMED_FAILURES else ""
    return f"Completed with {errors} error(s): {named}{more}"


def finished(run: Run) -> Answer:
    """The answer of a call that waited for the end of the run."""
    if run.reason == "no_sites":
        body = {"success": False, "count": 0, "message": run.message, "timestamp": timestamp(), "endpoint": "rest"}
        return Answer(200, body, "error", run.message, run.id)
    if run.status == "failed":
        return _failed(run)
    body = {"success": run.status == "succeeded", "message": "", "timestamp": timestamp(), "endpoint": "rest"}
    body |= counts(run)
    if run.status == "succeeded":
        return Answer(200, body, "notice", f"Running wp-cron on {run.count} sites", run.id)
    code, message = "CANCELLED", "The run was cancelled"
    if run.errors:
        code, message = "PARTIAL_FAILURE", partial_message(run.errors, run.failures)
    return Answer(200, body | {"error_code": code, "message": message}, "warning", message, run.id)


def still_running(run_id: str, mode: str) -> Answer:
    """A call that waited long enough; the run goes on."""
    body = {
        "success": True,
        "status": "running",
        "message": "Still running; see Location",
        "mode": mode,
        "timestamp": timestamp(),
    }
    return Answer(202, body, "notice", f"Still running wp-cron; run {run_id}", run_id)


def queued(admitted: Admitted, *, redis_queue: bool) -> Answer:
    """A deferred call: a new run, or the one that was waiting already."""
    message = "Cron job queued to Redis for background processing"
    if not redis_queue:
        message = "Cron job queued for background processing"
    body: dict[str, Any] = {
        "success": True,
        "status": "queued",
        "message": message,
        "timestamp": timestamp(),
        "mode": "redis" if redis_queue else "deferred",
    }
    if admitted.what == "joined":
        body["coalesced"] = True
    if redis_queue and admitted.workers == 0:
        body |= {"workers": 0, "warning": f"Queued, but {NO_WORKER}; start one with `rq worker` (see the Procfile)."}
        return Answer(202, body, "warning", QUEUED_FOR_NOBODY, admitted.run_id)
    return Answer(202, body, "notice", message, admitted.run_id)


def refusal(refused: Refused) -> Answer:
    """Why nothing was started."""
    message = str(refused)
    if isinstance(refused, CoolingDown):
        body = {
            "success": False,
            "error": "rate_limited",
            "message": message,
            "retry_after": refused.retry_after,
            "cooldown": refused.cooldown,
            "last_run_gmt": refused.last_run,
            "timestamp": timestamp(),
        }
        return Answer(429, body, "error", message, refused.run_id, {"Retry-After": str(refused.retry_after)})
    if isinstance(refused, AlreadyRunning):
        body = {"success": False, "error": "locked", "message": message}
        return Answer(409, body, "warning", message, refused.run_id, {"Retry-After": str(refused.retry_after)})
    body = {"success": False, "message": message}
    if isinstance(refused, Deactivated):
        return Answer(503, body | {"error": "deactivated"}, "error", message)
    headers = {"Retry-After": str(RedisUnavailable.retry_after)}
    return Answer(503, body | {"error": "redis_unavailable"}, "error", message, headers=headers)


def internal_error(run_id: str | None) -> Answer:
    """Something this project did not foresee; the log has the rest."""
    message = "Internal error; the service's log says more."
    body = {"success": False, "error_code": "INTERNAL_ERROR", "message": message}
    return Answer(500, body, "error", message, run_id)


def nothing_queued() -> Answer:
    """process-queue with no run waiting."""
    message = "No jobs in queue"
    return Answer(200, {"success": True, "message": message, "count": 0}, "notice", message)


def queue_locked(refused: AlreadyRunning) -> Answer:
    """process-queue while a run is under way."""
    message = "Lock held — job re-queued for later processing."
    return Answer(409, {"success": False, "message": message, "retry": True}, "warning", message, refused.run_id)


def queue_unreachable() -> Answer:
    """process-queue without Redis."""
    message = "Redis is not available"
    return Answer(503, {"success": False, "message": message}, "error", message)


def queue_result(run: Run) -> Answer:
    """process-queue's result: 500 unless every site went well."""
    answer = finished(run)
    status = 200 if run.status == "succeeded" else 500
    return Answer(status, answer.body, answer.kind, answer.line, run.id)


def wordpress_error(code: str, message: str, status: int, **data: Any) -> dict[str, Any]:
    """An error as WordPress's REST API shapes it."""
    return {"code": code, "message": message, "data": {"status": status, **data}}


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run_view(run: Run) -> dict[str, Any]:
    """A run as `…/runs/{run_id}` shows it. Times are ISO 8601 in UTC."""
    return {
        "run_id": run.id,
        "status": run.status,
        "mode": run.mode,
        "by": run.by,
        "queued_at": _iso(run.queued_ms),
        "started_at": _iso(run.started_ms),
        "ended_at": _iso(run.ended_ms),
        **counts(run),
        "outcomes": {outcome.name.lower(): n for outcome, n in run.counts.items() if n},
        "sites_listed": run.sites,
        "sites_done": run.count,
        "batches": {"done": run.batches_done, "listed": run.batches, "all_listed": run.all_listed},
        "retries": run.retries,
        "crashes": run.crashes,
        "bad_entries": run.bad_entries,
        "failing": [failure._asdict() for failure in run.failures[:SHOWN_FAILURES]],
        "failing_total": run.failures_total,
        "reason": run.reason,
        "message": run.message,
    }
