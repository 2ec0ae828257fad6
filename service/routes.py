"""The routes and their handlers (CONTRACT sections 1 and 2)."""

import asyncio
from dataclasses import replace
from functools import cache

import structlog
from redis.exceptions import RedisError, ResponseError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from jobs import __version__, filters, keys
from jobs.admission import Admitted, NothingQueued, Trigger
from jobs.errors import Refused
from jobs.outcomes import Outcome
from service import answers
from service.answers import Answer, RestError
from service.events import events
from service.metrics import metrics
from service.openapi import Described, openapi
from service.paths import LEGACY, NAMESPACE, REST
from service.rest import Call, no_route, rest
from service.web import Web

READY_SECONDS = 2.0

log = structlog.get_logger("all_sites_cron.web")


async def run(call: Call, legacy: tuple[str, ...] = ()) -> Answer:
    """Trigger wp-cron on every public site, now or through the queue."""
    defer, settings = call.values["defer"], call.web.settings
    mode = "sync" if not defer else "redis" if settings.use_redis_queue else "deferred"
    trigger = Trigger("defer" if defer else "here", mode, call.caller, filters.cooldown(settings), legacy)
    admitted = await call.web.admit(trigger)
    if admitted.what == "started":
        return await _walk_here(call.web, admitted, mode)
    return answers.queued(admitted, redis_queue=settings.use_redis_queue)


async def legacy_run(call: Call) -> Answer:
    """The plugin's old route: the same, counted, and a line in the log."""
    _say_deprecated()
    return await run(call, (f"{REST}{LEGACY}/run",))


@cache  # once a process
def _say_deprecated() -> None:
    log.warning(f"{REST}{LEGACY}/run is the legacy route; call {REST}{NAMESPACE}/run")


async def process_queue(call: Call) -> Answer:
    """Start the queued run here, for deployments without a worker; 500 unless every site went well."""
    try:
        admitted = await call.web.admit(Trigger("process-queue", "process-queue", call.caller, cooldown=0))
    except (NothingQueued, Refused) as refused:
        return answers.nothing_processed(refused)
    answer = await _walk_here(call.web, admitted, "process-queue")
    return answer if answer.body["success"] else replace(answer, status=500)


async def _walk_here(web: Web, admitted: Admitted, mode: str) -> Answer:
    """Walk in this process and wait for the end, at most SYNC_DEADLINE; the run goes on without the caller."""
    walking = web.walk(admitted.run_id, admitted.walker)
    done, _ = await asyncio.wait({walking}, timeout=web.settings.sync_deadline)
    if done and not walking.result():
        return answers.internal_error(run_id=admitted.run_id)
    ended = await web.run(admitted.run_id)
    return answers.finished(ended) if ended.final else answers.still_running(ended.id, mode)


async def one_run(call: Call) -> Response:
    """A run with its progress."""
    return JSONResponse(answers.run_view(await call.web.run(call.request.path_params["run_id"])))


async def all_runs(call: Call) -> Response:
    """The runs that are kept, the newest first, a page of them."""
    page, size = call.values["page"], call.values["per_page"]
    total, found = await call.web.runs((page - 1) * size, size)
    listed = [answers.run_line(run) for run in found]
    return JSONResponse({"total": total, "page": page, "per_page": size, "runs": listed})


async def cancel(call: Call) -> Answer:
    """Stop a run after the requests now in flight: 202, or 200 where it is over at once."""
    run = await call.web.cancel(call.request.path_params["run_id"], call.caller)
    return Answer(200 if run.final else 202, answers.run_view(run))


async def run_sites(call: Call) -> Response:
    """The sites of a run by outcome, as far as they are kept, a page of them; those not due are only counted."""
    outcome, page, size = (call.values[name] for name in ("outcome", "page", "per_page"))
    run = await call.web.run(call.request.path_params["run_id"])
    found = [failure._asdict() for failure in run.failures if failure.outcome == outcome]
    counted = sum(n for of, n in run.counts.items() if of.kind == outcome and of is not Outcome.NOT_DUE)
    body = {"outcome": outcome, "total": len(found), "page": page, "per_page": size}
    body["sites"] = found[(page - 1) * size : page * size]
    return JSONResponse(body | ({"truncated": True} if counted > len(found) else {}))


async def one_site(call: Call) -> Response:
    """Whether cron is healthy on a site."""
    site_id = call.request.path_params["site_id"]
    if (site := await call.web.site(site_id)) is None:
        message = f"Nothing is known of a site {site_id[:40]!r}: it was never triggered, or it left the network."
        raise RestError(404, "rest_site_not_found", message)
    return JSONResponse(answers.site_view(site, await call.web.now(), call.web.settings.overdue_after))


async def sites(call: Call) -> Response:
    """The sites in a state, a page of them."""
    state, page, size = (call.values[name] for name in ("state", "page", "per_page"))
    now, overdue_after = await call.web.now(), call.web.settings.overdue_after
    total, found = await call.web.sites(state, now, (page - 1) * size, size)
    views = [answers.site_view(site, now, overdue_after) for site in found]
    return JSONResponse({"state": state, "total": total, "page": page, "per_page": size, "sites": views})


async def index(request: Request) -> Response:
    """The namespace, its routes, the version, and a newer one if it is known."""
    routes = {
        route.path.removeprefix(REST): {"methods": sorted(route.methods or ())}
        for route in ROUTES
        if route.path.startswith(REST)
    }
    web: Web = request.app.state.web
    update = {"update": {"version": web.newest.version, "url": web.newest.url}} if web.newest.newer else {}
    return JSONResponse({"namespace": NAMESPACE[1:], "version": __version__, "routes": routes, **update})


async def livez(request: Request) -> Response:
    """Alive; asks nothing."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Ready when Redis answers in time and takes writes; says how many workers listen."""
    web: Web = request.app.state.web
    try:
        async with asyncio.timeout(READY_SECONDS):
            workers = await web.workers()
            await web.redis.setrange(keys.LOCK, 0, "")  # changes nothing, and is refused where any write is
    except (RedisError, TimeoutError) as error:
        log.warning("not ready", error=str(error))
        why = "takes no writes" if isinstance(error, ResponseError) else "unreachable"
        why = f"no answer within {READY_SECONDS:g} s" if isinstance(error, TimeoutError) else why
        return JSONResponse({"status": "unavailable", "checks": {"redis": why}}, 503, {"Retry-After": "5"})
    warning = {} if workers or not web.settings.use_redis_queue else {"warning": answers.NO_WORKER}
    return JSONResponse({"status": "ready", "checks": {"redis": "ok"}, "workers": workers, **warning})


RUN = f"{NAMESPACE}/runs/{{run_id}}"
ROUTES = [
    rest(f"{NAMESPACE}/run", "GET POST", "run", run, "defer", "Result Taken Conflict SourceError"),
    rest(f"{LEGACY}/run", "GET POST", "run", legacy_run, "defer", "Result Taken Conflict SourceError"),
    rest(f"{NAMESPACE}/process-queue", "POST", "run", process_queue, "", "Result Taken Conflict"),
    rest(f"{NAMESPACE}/runs", "GET", "read", all_runs, "page per_page", "Runs NotModified"),
    rest(RUN, "GET", "read", one_run, "", "Run NotModified Unknown"),
    rest(f"{RUN}/sites", "GET", "read", run_sites, "outcome page per_page", "RunSites NotModified Unknown"),
    rest(f"{RUN}/events", "GET", "read", events, "", "Events Unknown"),
    rest(f"{RUN}/cancel", "POST", "run", cancel, "", "Cancelled Cancelling Unknown Conflict"),
    rest(f"{NAMESPACE}/sites", "GET", "read", sites, "state page per_page", "Sites NotModified"),
    rest(f"{NAMESPACE}/sites/{{site_id}}", "GET", "read", one_site, "", "Site NotModified Unknown"),
    rest("/metrics", "GET", "read", metrics, "", "Text", root=""),
    Described(f"{REST}{NAMESPACE}", index, "", "Index"),
    Described("/livez", livez, "", "Text"),
    Described("/readyz", readyz, "", "Ready NotReady"),
    Described("/openapi.json", openapi, "", "Document"),
]
HANDLERS = {404: no_route, 405: no_route}
