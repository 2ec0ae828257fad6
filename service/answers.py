"""Answers: the one place that turns a result, a refusal or an error into JSON or Actions text (CONTRACT section 2)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError
from starlette.responses import JSONResponse, PlainTextResponse, Response

from jobs.admission import Admitted, NothingQueued
from jobs.errors import AlreadyRunning, CoolingDown, Deactivated, FilterError, RedisUnavailable, Refused, RunNotFound
from jobs.health import Health
from jobs.redis_connection import unavailable
from jobs.runs import SHOWN_FAILURES, Failure, Run
from service.ga import Kind, command

NAMED_FAILURES = 3
NO_WORKER = "no worker is listening"
QUEUED_FOR_NOBODY = f"Cron job queued to Redis, but {NO_WORKER}"
REFUSALS: Mapping[type[Refused], tuple[int, str]] = {
    CoolingDown: (429, "rate_limited"),
    AlreadyRunning: (409, "locked"),
    Deactivated: (503, "deactivated"),
    RedisUnavailable: (503, "redis_unavailable"),
}
SHOWN_AS_THEY_ARE = ("status", "mode", "by", "retries", "crashes", "bad_entries", "reason", "message")
PASSING = ("PARTIAL_FAILURE", "CANCELLED")
FAILED = {"source": (502, "SOURCE_ERROR"), "filter": (500, "FILTER_ERROR")}


@dataclass(frozen=True)
class Answer:
    """What a caller gets: `body` as JSON, or with `ga=1` one line, what `told` says of it or `line`.

    A body that names its `run_id` gets a Location that points to it.
    """

    status: int
    body: Mapping[str, Any]
    line: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def render(self, *, ga: bool, runs_path: str = "") -> Response:
        """The HTTP answer; `runs_path` is where runs are found, `/wp-json/all-sites-cron/v1/runs`."""
        headers = dict(self.headers)
        if run_id := self.body.get("run_id"):
            headers["Location"] = f"{runs_path}/{run_id}"
        if ga:
            kind, text = told(self.body)
            return PlainTextResponse(command(kind, self.line or text), self.status, headers)
        return JSONResponse(self.body, self.status, headers)


def told(body: Mapping[str, Any]) -> tuple[Kind, str]:
    """The Actions line of an answer's body, or of a run as `…/runs/{run_id}` shows it."""
    message = str(body.get("message") or "")
    if body.get("workers") == 0:
        return "warning", QUEUED_FOR_NOBODY
    if body.get("status") == "running":
        return "notice", f"Still running wp-cron; run {body.get('run_id')}"
    if body.get("success") or body.get("status") == "succeeded":
        return "notice", message or f"Running wp-cron on {body.get('count', 0)} sites"
    if body.get("status") == "partial" and {"errors", "failing"} <= body.keys():
        return "warning", partial_message(body["errors"], [Failure(**failure) for failure in body["failing"]])
    passing = body.get("retry") or body.get("error") == "locked" or body.get("error_code") in PASSING
    return "warning" if passing else "error", message or f"The run ended as {body.get('status')}"


@dataclass(eq=False)
class RestError(Exception):
    """A call that is wrong, told as WordPress's REST API tells it. `params`: what is wrong, by parameter."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)

    def answer(self) -> Answer:
        """Its answer; the line tells the parameters first of all."""
        data = {"status": self.status} | ({"params": self.params} if self.params else {})
        body = {"code": self.code, "message": self.message, "data": data}
        return Answer(self.status, body, line=" ".join(self.params.values()), headers=self.headers)


def failure(error: Exception) -> Answer:
    """The answer to whatever a handler raised."""
    match error:
        case RestError():
            return error.answer()
        case RunNotFound():
            return RestError(404, "rest_run_not_found", str(error)).answer()
        case Refused():
            return refusal(error)
        case FilterError():
            return Answer(500, {"success": False, "error_code": "FILTER_ERROR", "message": str(error)})
        case RedisError() if unavailable(error):
            return refusal(RedisUnavailable("Redis is not available."))
    return internal_error()


def internal_error(**facts: str) -> Answer:
    """Something this project did not foresee. `facts`: more of the body."""
    message = "Internal error; the service's log says more."
    return Answer(500, {"success": False, "error_code": "INTERNAL_ERROR", "message": message, **facts})


def refusal(refused: Refused) -> Answer:
    """Why nothing was started."""
    status, word = REFUSALS[type(refused)]
    body: dict[str, Any] = {"success": False, "error": word, "message": str(refused)}
    if isinstance(refused, AlreadyRunning | CoolingDown):
        body["run_id"] = refused.run_id
    if isinstance(refused, CoolingDown):
        body |= {"retry_after": refused.retry_after, "cooldown": refused.cooldown}
        body |= {"last_run_gmt": refused.last_run, "timestamp": timestamp()}
    wait = getattr(refused, "retry_after", None)
    headers = {"Retry-After": str(wait)} if wait else {}
    return Answer(status, body, headers=headers)


def nothing_processed(refused: NothingQueued | Refused) -> Answer:
    """Why process-queue started nothing, in the plugin's words where it has some."""
    match refused:
        case NothingQueued():
            return Answer(200, {"success": True, "message": "No jobs in queue", "count": 0})
        case AlreadyRunning():
            message = "Lock held — job re-queued for later processing."
            return Answer(409, {"success": False, "message": message, "retry": True, "run_id": refused.run_id})
        case RedisUnavailable():
            return Answer(503, {"success": False, "message": "Redis is not available"})
    return refusal(refused)


def timestamp() -> str:
    """Now, as the plugin writes it, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")


def queued(admitted: Admitted, *, redis_queue: bool) -> Answer:
    """A deferred call: a new run, or the one that was waiting already."""
    message = f"Cron job queued {'to Redis ' if redis_queue else ''}for background processing"
    body: dict[str, Any] = {"success": True, "status": "queued", "message": message, "timestamp": timestamp()}
    body |= {"mode": "redis" if redis_queue else "deferred", "run_id": admitted.run_id}
    if admitted.what == "joined":
        body["coalesced"] = True
    if redis_queue and admitted.workers == 0:
        body |= {"workers": 0, "warning": f"Queued, but {NO_WORKER}; start one with `rq worker` (see the Procfile)."}
    return Answer(202, body)


def still_running(run_id: str, mode: str) -> Answer:
    """A call that waited long enough; the run goes on."""
    body = {"success": True, "status": "running", "message": "Still running; see Location", "mode": mode}
    return Answer(202, body | {"timestamp": timestamp(), "run_id": run_id})


def finished(run: Run) -> Answer:
    """The answer of a call that waited for the end of the run."""
    body = {"success": False, "message": run.message, "timestamp": timestamp(), "endpoint": "rest", "run_id": run.id}
    if run.reason == "no_sites":
        return Answer(200, body | {"count": 0})
    body |= run.figures
    if run.status == "succeeded":
        return Answer(200, body | {"success": True, "message": ""})
    if run.status == "failed":
        status, code = FAILED.get(run.reason, (500, "INTERNAL_ERROR"))
        return Answer(status, body | {"error_code": code})
    code, message = "CANCELLED", run.message or "The run was cancelled"
    if run.status == "partial":
        code, message = "PARTIAL_FAILURE", partial_message(run.errors, run.failures)
    return Answer(200, body | {"error_code": code, "message": message})


def partial_message(errors: int, failures: Iterable[Failure]) -> str:
    """The plugin's sentence: the number of errors and the first three."""
    failed = [f for f in failures if f.outcome == "failed" or f.reason == "host_down"]
    named = "; ".join(f"Error for {f.url}: {f.detail or f.reason}" for f in failed[:NAMED_FAILURES])
    more = "..." if errors > NAMED_FAILURES else ""
    return f"Completed with {errors} error(s): {named}{more}"


def _iso(moment: int | None, per_second: int = 1) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment / per_second, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def site_view(site: Health, now: int, overdue_after: int) -> dict[str, Any]:
    """A site's cron health as `…/sites/{site_id}` shows it. `now`: Unix seconds."""
    failing = {"runs": site.failures, "since": _iso(site.since), "reason": site.reason}
    return {
        "site_id": site.site_id,
        "url": site.url,
        "state": site.state(now, overdue_after),
        "last_dispatch_at": _iso(site.dispatched),
        "last_verified_at": _iso(site.verified),
        "failing": failing if site.failures else None,
        "due_since": _iso(site.due),
        "lag_seconds": None if site.due is None else max(0, now - site.due),
    }


def run_view(run: Run) -> dict[str, Any]:
    """A run as `…/runs/{run_id}` shows it. Times are ISO 8601 in UTC."""
    return run_line(run) | {"failing": [failure._asdict() for failure in run.failures[:SHOWN_FAILURES]]}


def run_line(run: Run) -> dict[str, Any]:
    """A run as `…/runs` lists it: the same without the failing sites."""
    return {
        "run_id": run.id,
        **{name: getattr(run, name) for name in SHOWN_AS_THEY_ARE},
        "queued_at": _iso(run.queued_ms, 1000),
        "started_at": _iso(run.started_ms, 1000),
        "ended_at": _iso(run.ended_ms, 1000),
        **run.figures,
        "outcomes": {outcome.name.lower(): n for outcome, n in run.counts.items() if n},
        "verification": {"status": run.verification, **run.verified} if run.verification else None,
        "sites_listed": run.sites,
        "sites_done": run.count,
        "batches": {"done": run.batches_done, "listed": run.batches, "all_listed": run.all_listed},
        "failing_total": run.failures_total,
    }
