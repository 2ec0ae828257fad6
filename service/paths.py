"""The two ways WordPress spells a REST address, brought to one (CONTRACT section 1).

`/?rest_route=/all-sites-cron/v1/run` and `/{any}/wp-json/all-sites-cron/v1/run/` are
`/wp-json/all-sites-cron/v1/run`. The way a caller spelled it is kept, for `Location`.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl, quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REST = "/wp-json"
NAMESPACE = "/all-sites-cron/v1"
LEGACY = "/dss-cron/v1"
UNCACHED = {"Cache-Control": "no-store"}
DEPRECATED = UNCACHED | {
    "Deprecation": "@1795478400",  # RFC 9745: since this service's first release, 2026-11-24
    "Link": f'<{REST}{NAMESPACE}/run>; rel="successor-version"',
}


class WordPressPaths:
    """Rewrites a request's path; `scope["rest_root"]` becomes what stands before the namespace for this caller.

    Every answer under the path gets the headers that all of them carry.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under its one path."""
        if scope["type"] == "http":
            path, root = normalise(scope["path"], scope["query_string"])
            scope = dict(scope, path=path, raw_path=path.encode("utf-8", "surrogateescape"), rest_root=root)
            if path.startswith(REST):
                send = _with_headers(send, DEPRECATED if path.startswith(REST + LEGACY) else UNCACHED)
        await self._app(scope, receive, send)


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return with_headers


def normalise(path: str, query: bytes) -> tuple[str, str]:
    """(the one path, what stands before `/all-sites-cron/…` in the caller's spelling)."""
    if path.endswith(("/", "/index.php")):
        route = dict(parse_qsl(query.decode("latin-1"))).get("rest_route")
        if route:
            return f"{REST}/{route.strip('/')}", f"{_on_this_host(path)}?rest_route="
    before, found, after = path.partition(f"{REST}/")
    if found:
        return f"{REST}/{after}".rstrip("/"), _on_this_host(before + REST)
    return path.rstrip("/") or "/", REST


def _on_this_host(path: str) -> str:
    """Fit for a Location header: ASCII without line breaks, and never `//another.host/…`."""
    return quote("/" + path.lstrip("/"))
