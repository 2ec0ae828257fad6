"""rq-dashboard at /rq: who is signed in reads it; it writes only where DASHBOARD_WRITE says so (SECURITY.md).

Imported, with Flask, by the first request for it. What it shows may be anybody's: no pickle is loaded, no markup of a
job arrives, no script but its own runs (docs/decisions.md has its routes).
"""

import asyncio
import json
import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from typing import Any, cast

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message

from console import session
from service.answers import RestError
from service.web import Web

READS = re.compile("|0/(view|data)/.+|static/.+")  # all else that it has changes something, /requeue/… by GET too
POLL_MS = 5000
THREADS = 2
NEEDED = ("rq_dashboard", "six", "a2wsgi")
PASSED = (b"if-none-match", b"if-modified-since")  # headers; cookie and token are no business of its


class Foreign(list[Any]):
    """Stands for what somebody's job holds that is no JSON, most likely a pickle: a call, or a value, of that name."""

    def __init__(self, written: bytes) -> None:
        super().__init__(("(not JSON)", None, [], {}))
        self.written = written


class OnlyJson:
    """RQ's default serializer from then on, as rq-dashboard leaves most jobs to that one, and it loads pickles."""

    @staticmethod
    def loads(data: bytes) -> Any:
        """Whatever it is, without running it."""
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return Foreign(data)

    @staticmethod
    def dumps(value: Any) -> bytes:
        """What was no JSON as it was."""
        return value.written if isinstance(value, Foreign) else json.dumps(value).encode()


async def answer(request: Request, web: Web) -> Response:
    """What rq-dashboard answers, made safe; raises RestError."""
    if not all(map(find_spec, NEEDED)):
        return PlainTextResponse("rq-dashboard is an extra: pip install '.[dashboard]'\n", 404)
    path = request.path_params.get("path", "")
    if request.method == "POST":
        if not web.settings.dashboard_write:
            raise RestError(403, "all_sites_cron_read_only", "ALL_SITES_CRON_DASHBOARD_WRITE=true lets this through.")
    elif not READS.fullmatch(path):
        raise RestError(404, "rest_no_route", "rq-dashboard shows nothing here.")
    application = await asyncio.to_thread(_application, web)
    scope = dict(request.scope, root_path="/rq", path=f"/rq/{path}", query_string=b"")
    scope["headers"] = [(name, value) for name, value in request.headers.raw if name in PASSED]
    response = Response()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            response.status_code, response.raw_headers = message["status"], list(message["headers"])
        response.body += message.get("body", b"")

    await application(scope, request.receive, send)
    return _safe(response)


def check_script(request: Request, _: str) -> None:
    """Refuse what no script of this host sent; raises RestError. Other hosts' cannot set this header unasked (CORS)."""
    session.check_origin(request)
    if request.headers.get("x-requested-with") != "XMLHttpRequest":
        raise RestError(403, "all_sites_cron_foreign_form", "This came from no page of rq-dashboard; nothing was done.")


def _safe(response: Response) -> Response:
    """Its templates put what a job holds into the page as it is: no `<` arrives there, and no other script runs."""
    headers, page = MutableHeaders(raw=response.raw_headers), ""
    kind = headers.get("content-type", "")
    if kind.startswith("application/json"):
        response.body = bytes(response.body).replace(b"<", b"\\u2039")
        del headers["content-length"]
    elif kind.startswith("text/html"):
        page = bytes(response.body).decode()
    scripts = _hashes(re.findall('<script type="text/javascript">(.*?)</script>', page, re.DOTALL))
    styles = _hashes(re.findall(' style="([^"]*)"', page))
    headers["X-Content-Type-Options"], headers["Referrer-Policy"] = "nosniff", "no-referrer"
    headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' 'unsafe-eval'{scripts}; style-src 'self' 'unsafe-hashes'{styles}; "
        "img-src 'self' data:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
    return response


def _hashes(texts: list[str]) -> str:
    return "".join(f" 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in sorted(set(texts)))


@cache
def _application(web: Web) -> Any:
    """rq-dashboard on this process's own connection to Redis, whose address it is not told."""
    from a2wsgi import WSGIMiddleware
    from flask import Flask
    from rq.exceptions import NoSuchJobError
    from rq.serializers import DefaultSerializer

    DefaultSerializer.loads, DefaultSerializer.dumps = OnlyJson.loads, OnlyJson.dumps
    from rq_dashboard import web as dashboard  # type: ignore[import-untyped]

    dashboard.from_url = lambda *_, **__: (None, web.world.redis)
    made = Flask("rq_dashboard")
    made.jinja_options = {"autoescape": True}  # also .js, where a queue's name comes between quotes
    made.config.update(
        PROPAGATE_EXCEPTIONS=True,
        RQ_DASHBOARD_REDIS_URL=("REDIS_URL",),
        RQ_DASHBOARD_POLL_INTERVAL=POLL_MS,
        RQ_DASHBOARD_DISABLE_DELETE=not web.settings.dashboard_write,
    )
    made.url_map.redirect_defaults = made.url_map.merge_slashes = False  # its redirects name a host, and not ours
    made.register_blueprint(dashboard.blueprint)
    made.register_error_handler(NoSuchJobError, lambda _: ("No such job; it may have expired.", 404))
    dashboard.setup_rq_connection(made)
    return WSGIMiddleware(cast(Any, made), workers=THREADS)
