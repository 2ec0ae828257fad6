"""`GET /openapi.json`: every route, from its definition and what service/openapi.json declares (OpenAPI 3.1)."""

import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jobs import __version__

ALWAYS = "Invalid NoToken WrongToken TooMany Error Unavailable"  # where a token is asked for


class Described(Route):
    """A route as it is described; it `asks` for parameters and `gives` answers by their names in service/openapi.json.

    `scope`: of its token; "": it wants none. One of scope `run` has no HEAD, which Starlette adds to every GET.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], asks: str, gives: str, scope: str = "", **more: Any):
        super().__init__(path, endpoint, **more)
        self.scope, self.asks, self.gives = scope, asks.split(), f"{gives} {ALWAYS if scope else ''}"
        if scope == "run" and self.methods:
            self.methods.discard("HEAD")

    def operation(self, method: str) -> dict[str, Any]:
        """What it does when called so."""
        answers = f"{self.gives} TooSlow TooLarge" if method == "POST" else self.gives
        statuses = {name: declared()["components"]["responses"][name]["x-status"] for name in answers.split()}
        return {
            "operationId": f"{self.name}_{method.lower()}",
            "summary": (self.endpoint.__doc__ or "").partition("\n")[0],
            "parameters": [_ref("parameters", name) for name in (*self.param_convertors, *self.asks)],
            **({"requestBody": _ref("requestBodies", "Parameters")} if method == "POST" else {}),
            "responses": {str(status): _ref("responses", name) for name, status in statuses.items()},
            "security": [{"bearer": [self.scope]}, {"token": [self.scope]}] if self.scope else [],
        }


@cache  # read once
def declared() -> dict[str, Any]:
    """The description less its paths: what is told of parameters and answers, and what parameters are checked by."""
    return dict(json.loads(resources.files("service").joinpath("openapi.json").read_text()))


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


async def openapi(request: Request) -> Response:
    """This description."""
    info, routes = declared()["info"], [route for route in request.app.routes if isinstance(route, Described)]
    operations = {r.path: {m.lower(): r.operation(m) for m in sorted(r.methods or ()) if m != "HEAD"} for r in routes}
    return JSONResponse({**declared(), "info": info | {"version": __version__}, "paths": operations})
