"""The routes and their handlers: authenticate, read parameters, admit, answer (CONTRACT sections 1 to 3)."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import structlog
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from jobs import __version__
from jobs.admission import Admitted, NothingQueued, Trigger
from jobs.errors import AlreadyRunning, RedisUnavailable, Refused, RunNotFound
from jobs.redis_connection import unavailable
from jobs.runs import Run
from jobs.settings import boolean
from service import answers, parameters
from service.answers import Answer, wordpress_error
from service.auth import AuthError, Scope, authenticate
from service.ga import command
from service.parameters import BadParameter, TooLarge
from service.paths import NAMESPACE, REST
from service.web import Web

READY_SECONDS = 2.0
NO_HEADERS: Mapping[str, str] = {}
DEPRECATED = {
    "Deprecation": "@1795478400",  # RFC 9745: since this service's first release, 2026-11-24
    "Link": f'<{REST}{NAMESPACE}/run>; rel="successor-version"',
}

log = structlog.get_logger("all_sites_cron.web")


@dataclass(frozen=True)
class Call:
    """One request that was let in. `caller`: the name of its token. `values`: its parameters."""

    web: Web
    caller: str
    values: dict[str, str]
    request: Request


class WalkBroke(Exception):
    """The walk of a run ended with an error of this project's; the sweep will take the run up again."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


Handler = Callable[[Call], Awaitable[Answer | Response]]


def rest(
    path: str, methods: list[str], scope: Scope, handler: Handler, headers: Mapping[str, str] = NO_HEADERS
) -> Route:
    """A route under /wp-json: every refusal and error of its handler becomes the documented answer.

    `headers` go with each of its answers. A route of scope `run` has no HEAD, which Starlette adds to every GET.
    """

    async def endpoint(request: Request) -> Response:
        runs_path = f"{request.scope.get('rest_root', REST)}{NAMESPACE}/runs"
        values: dict[str, str] = {}
        try:
            values, flaw = await parameters.read(request)
            answer = await handler(await _let_in(request, scope, values, flaw))
        except (AuthError, BadParameter, TooLarge, RunNotFound) as error:
            answer = _rejection(error)
        except Refused as refused:
            answer = answers.refusal(refused)
        except WalkBroke as broke:
            answer = answers.internal_error(broke.run_id)
        except RedisError as error:
            if unavailable(error):
                answer = answers.refusal(RedisUnavailable("Redis is not available."))
            else:
                log.exception("Redis refused a command")
                answer = answers.internal_error(None)
        except Exception:  # whatever it was, the caller gets the documented answer and the log the rest
            log.exception("a request ended with an error", path=request.url.path)
            answer = answers.internal_error(None)
        if isinstance(answer, Answer):
            answer = answer.render(ga=_wants_text(values), runs_path=runs_path)
        answer.headers.update(headers)
        return answer

    route = Route(f"{REST}{path}", endpoint, methods=methods)
    if scope == "run" and route.methods:
        route.methods.discard("HEAD")
    return route


async def _let_in(request: Request, scope: Scope, values: dict[str, str], flaw: Exception | None) -> Call:
    """Who calls is asked first, then what is wrong with what they sent."""
    web: Web = request.app.state.web
    token = values["token"].encode("utf-8", "surrogateescape") if "token" in values else None
    caller = await authenticate(request, token, scope, web.world.settings, web.redis)
    if flaw:
        raise flaw
    return Call(web, caller, values, request)


def _wants_text(values: dict[str, str]) -> bool:
    try:
        return boolean(values.get("ga") or "0")
    except ValueError:
        return False


def _rejection(error: Exception) -> Answer:
    """An error of the caller's, as WordPress's REST API shapes it."""
    headers: dict[str, str] = {}
    if isinstance(error, AuthError):
        headers = error.headers
        body = wordpress_error(error.code, str(error), error.status)
    elif isinstance(error, BadParameter):
        text = f"Invalid parameter(s): {error.name}"
        body = wordpress_error("rest_invalid_param", text, 400, params={error.name: f"{error}."})
    elif isinstance(error, TooLarge):
        body = wordpress_error("rest_body_too_large", "The body of the request is larger than 64 KiB.", 413)
    else:
        body = wordpress_error("rest_run_not_found", str(error), 404)
    detail = body["data"].get("params", {}).values()
    return Answer(body["data"]["status"], body, "error", next(iter(detail), body["message"]), headers=headers)


async def run(call: Call) -> Answer:
    """Trigger wp-cron on every public site, now or through the queue."""
    parameters.flag(call.values, "ga")
    defer = parameters.flag(call.values, "defer")
    web, settings = call.web, call.web.world.settings
    mode = "sync" if not defer else "redis" if settings.use_redis_queue else "deferred"
    trigger = Trigger("defer" if defer else "here", mode, call.caller, settings.rate_limit_seconds)
    try:
        admitted = await web.admit(trigger)
    except AlreadyRunning as refused:
        if refused.orphaned and not settings.use_redis_queue:
            web.walk(refused.run_id)
        raise
    if admitted.what == "started":
        ended = await _walk_here(web, admitted)
        return answers.finished(ended) if ended.final else answers.still_running(ended.id, mode)
    if admitted.what == "queued" and not settings.use_redis_queue:
        web.walk(admitted.run_id)
    return answers.queued(admitted, redis_queue=settings.use_redis_queue)


async def legacy_run(call: Call) -> Answer:
    """The plugin's old route: the same, and a line in the log."""
    _say_deprecated_once()
    return await run(call)


async def process_queue(call: Call) -> Answer:
    """Start the queued run here, for deployments without a worker."""
    parameters.flag(call.values, "ga")
    mode: Literal["process-queue"] = "process-queue"
    try:
        admitted = await call.web.admit(Trigger(mode, mode, call.caller, 0))
    except NothingQueued:
        return answers.nothing_queued()
    except AlreadyRunning as refused:
        return answers.queue_locked(refused)
    except RedisUnavailable:
        return answers.queue_unreachable()
    ended = await _walk_here(call.web, admitted)
    return answers.queue_result(ended) if ended.final else answers.still_running(ended.id, mode)


async def _walk_here(web: Web, admitted: Admitted) -> Run:
    """Walk in this process and wait for the end, at most SYNC_DEADLINE; the run goes on without the caller."""
    walking = web.walks.start(admitted.run_id, admitted.walker)
    done, _ = await asyncio.wait({walking}, timeout=web.world.settings.sync_deadline)
    if done and walking.exception():
        raise WalkBroke(admitted.run_id)
    return await web.run(admitted.run_id)


async def one_run(call: Call) -> Response:
    """A run with its progress."""
    run_id = call.request.path_params["run_id"]
    if not re.fullmatch("[0-9a-f]{16}", run_id):  # else `ID:failed` would name another key of the run
        raise RunNotFound(f"No run {run_id[:100]!r} is known; an id is 16 hex digits.")
    found = await call.web.run(run_id)
    return JSONResponse(answers.run_view(found))


async def index(request: Request) -> Response:
    """The namespace, its routes and the version."""
    routes = {
        route.path.removeprefix(REST): {"methods": sorted(route.methods or ())}
        for route in ROUTES
        if isinstance(route, Route) and route.path.startswith(REST)
    }
    return JSONResponse({"namespace": NAMESPACE[1:], "version": __version__, "routes": routes})


async def livez(request: Request) -> Response:
    """Alive; asks nothing."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Ready when Redis answers in time; says how many workers listen."""
    web: Web = request.app.state.web
    try:
        async with asyncio.timeout(READY_SECONDS):
            workers = await web.workers()
    except (RedisError, TimeoutError) as error:
        why = str(error) or f"no answer within {READY_SECONDS:g} s"
        return JSONResponse({"status": "unavailable", "checks": {"redis": why}}, 503, {"Retry-After": "5"})
    body: dict[str, object] = {"status": "ready", "checks": {"redis": "ok"}, "workers": workers}
    if not workers and web.world.settings.use_redis_queue:
        body["warning"] = answers.NO_WORKER
    return JSONResponse(body)


async def not_found(request: Request, error: Exception) -> Response:
    """404 and 405 as WordPress's REST API shapes them, with Allow where a method is wrong."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = error.headers if isinstance(error, HTTPException) else None
    message = "No route was found matching the URL and request method."
    if _wants_text(dict(request.query_params)):
        return PlainTextResponse(command("error", message), status, headers)
    return JSONResponse(wordpress_error("rest_no_route", message, status), status, headers)


_said: list[bool] = []


def _say_deprecated_once() -> None:
    if not _said:
        _said.append(True)
        log.warning(f"{REST}/dss-cron/v1/run is the legacy route; call {REST}{NAMESPACE}/run")


ROUTES = [
    rest(f"{NAMESPACE}/run", ["GET", "POST"], "run", run),
    rest("/dss-cron/v1/run", ["GET", "POST"], "run", legacy_run, DEPRECATED),
    rest(f"{NAMESPACE}/process-queue", ["POST"], "run", process_queue),
    rest(f"{NAMESPACE}/runs/{{run_id}}", ["GET"], "read", one_run),
    Route(f"{REST}{NAMESPACE}", index, methods=["GET"]),
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
]
HANDLERS = {404: not_found, 405: not_found}
