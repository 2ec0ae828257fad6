"""A route under /wp-json: read parameters, authenticate, call its handler, answer (CONTRACT sections 1 to 3)."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeAlias

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service import answers, parameters
from service.answers import Answer, RestError
from service.auth import Scope, authenticate
from service.openapi import Described
from service.paths import NAMESPACE, REST
from service.web import Web

log = structlog.get_logger("all_sites_cron.web")


@dataclass(frozen=True)
class Call:
    """One request that was let in. `caller`: the name of its token. `values`: the parameters its route asks for."""

    web: Web
    caller: str
    values: Mapping[str, Any]
    request: Request


Handler: TypeAlias = Callable[[Call], Awaitable[Answer | Response]]


def rest(path: str, methods: str, scope: Scope, handler: Handler, asks: str, gives: str, root: str = REST) -> Described:
    """The route, under `root`; whatever its handler raises becomes the documented answer."""
    asks += " ga"

    async def endpoint(request: Request) -> Response:
        web: Web = request.app.state.web
        values = parameters.form(request.scope["query_string"])
        try:
            try:
                values |= await parameters.sent(request)
            finally:  # who calls is asked first, then what is wrong with what they sent
                caller = await authenticate(request, values.get("token", ""), scope, web.settings, web.redis)
            asked = {name: parameters.read(values, name) for name in asks.split()}
            answer = await handler(Call(web, caller, asked, request))
        except Exception as error:
            answer = answers.failure(error)
            if answer.status == 500:
                log.exception("a request ended with an error", path=request.url.path)
        if isinstance(answer, Response):
            return tagged(answer, request) if isinstance(answer, JSONResponse) else answer
        runs_path = f"{request.scope.get('rest_root', REST)}{NAMESPACE}/runs"
        return answer.render(ga=parameters.wants_text(values), runs_path=runs_path)

    endpoint.__doc__ = handler.__doc__
    return Described(f"{root}{path}", endpoint, asks, gives, scope, methods=methods.split(), name=handler.__name__)


def tagged(answer: JSONResponse, request: Request) -> Response:
    """The answer with its ETag; 304 without a body where the caller has it (RFC 9110 §13.1.2: compared weakly)."""
    tag = f'"{sha256(answer.body).hexdigest()[:32]}"'
    answer.headers["ETag"] = f"W/{tag}"
    tags = {one.strip().removeprefix("W/") for one in ",".join(request.headers.getlist("if-none-match")).split(",")}
    return Response(status_code=304, headers={"ETag": f"W/{tag}"}) if tags & {tag, "*"} else answer


async def no_route(request: Request, error: Exception) -> Response:
    """404 and 405 as WordPress's REST API shapes them, with Allow where a method is wrong."""
    status, headers = (error.status_code, error.headers or {}) if isinstance(error, HTTPException) else (404, {})
    message = "No route was found matching the URL and request method."
    answer = RestError(status, "rest_no_route", message, headers).answer()
    return answer.render(ga=parameters.wants_text(request.query_params))
