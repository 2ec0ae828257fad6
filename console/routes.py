"""The operator's page: its routes, and what each may do."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from console import page, rq_dashboard, session
from jobs import __version__, filters
from jobs.admission import Trigger
from jobs.errors import AlreadyRunning, CoolingDown, Deactivated
from jobs.plain_text import plain
from service import answers, parameters
from service.answers import Answer, RestError
from service.auth import Scope, authenticate, matching
from service.web import Web

PAGE = 20  # runs, sites
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
POLICY += "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

log = structlog.get_logger("all_sites_cron.web")


@dataclass(frozen=True)
class View:
    """A template and what it is given."""

    template: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Visit:
    """One request that was let in. `caller`: whose token. `values`: query and form."""

    request: Request
    web: Web
    caller: str
    values: Mapping[str, str]


Handler: TypeAlias = Callable[[Visit], Awaitable[View | Response]]


def _route(
    path: str,
    handler: Handler,
    scope: Scope | None = "read",
    method: str = "GET",
    check: Callable[[Request, str], None] = session.check_form,
) -> Route:
    """A page, or with POST an action; whatever it raises becomes a page, too. Without a scope anybody may call.

    `check`: whether a page of ours sent the POST; given its form token, it raises RestError.
    """

    async def endpoint(request: Request) -> Response:
        web: Web = request.app.state.web
        try:
            caller = await session.caller(request, scope) if scope else ""
            values = parameters.form(request.scope["query_string"]) | await parameters.sent(request)
            if scope and method == "POST":
                check(request, values.get("csrf", ""))
            view = await handler(Visit(request, web, caller, values))
        except Exception as error:
            view = _wrong(request, answers.failure(error))
            if isinstance(view, View) and view.status == 500:
                log.exception("a request ended with an error", path=request.url.path)
        return view if isinstance(view, Response) else _rendered(request, view)

    return Route(path, endpoint, methods=[method])


def _rendered(request: Request, view: View) -> Response:
    web: Web = request.app.state.web
    signed_in, required = session.read(request), filters.auth_required(web.settings)
    fresh = None if signed_in or required else session.anonymous()
    known: dict[str, Any] = {
        "session": signed_in or fresh,
        "required": required,
        "version": __version__,
    }
    known |= {"newest": web.newest, "path": request.url.path}
    html = page.render(view.template, **known, **view.facts)
    response = HTMLResponse(html, view.status, HEADERS | dict(view.headers))
    if fresh:
        session.keep(response, request, fresh)
    return response


def _wrong(request: Request, answer: Answer) -> View | Response:
    if answer.status == 401:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return _to(f"/sign-in?next={quote(here if request.method == 'GET' else '/')}")
    params = answer.body.get("data", {}).get("params", {}).values()
    facts = {"status": answer.status, "message": answer.body["message"], "params": params}
    return View("error.html", facts, answer.status, answer.headers)


def _to(path: str) -> Response:
    return RedirectResponse(path, 303, HEADERS)


async def overview(visit: Visit) -> View:
    """What is happening now, the last runs, and how many sites are not well."""
    return await _overview(visit)


async def _overview(visit: Visit, refused: Exception | None = None, status: int = 200) -> View:
    web = visit.web
    seen = await page.overview(web)
    total, runs = await web.runs(0, PAGE)
    worst = {state: await page.search(web, state, "", seen.now, 0, 3) for state in page.STATES if seen.sites[state]}
    facts = {"seen": seen, "runs": runs, "total": total, "bars": page.bars(runs), "worst": worst, "refused": refused}
    facts |= {"progress": page.progress(seen.active, seen.now) if seen.active else None, "now": seen.now}
    return View("overview.html", facts | {"settings": web.settings}, status)


async def run_now(visit: Visit) -> View | Response:
    """Queue a run; refused, the page says why."""
    mode = "redis" if visit.web.settings.use_redis_queue else "deferred"
    trigger = Trigger("defer", mode, visit.caller, filters.cooldown(visit.web.settings))
    try:
        await visit.web.admit(trigger)
    except (AlreadyRunning, CoolingDown, Deactivated) as refused:
        return await _overview(visit, refused, answers.refusal(refused).status)
    return _to("/")


async def cancel(visit: Visit) -> Response:
    """Stop a run after the requests now in flight."""
    run_id = visit.request.path_params["run_id"]
    await visit.web.cancel(run_id, visit.caller)
    return _to(f"/runs/{run_id}")


async def all_runs(visit: Visit) -> View:
    """The runs that are kept, newest first."""
    number = parameters.read(visit.values, "page")
    total, runs = await visit.web.runs((number - 1) * PAGE, PAGE)
    facts = {"runs": runs, "bars": page.bars(runs), "total": total, "page": number, "size": PAGE}
    return View("runs.html", facts | {"now": await visit.web.now()})


async def one_run(visit: Visit) -> View:
    """A run, and its failing sites."""
    number = parameters.read(visit.values, "page")
    run, now = await visit.web.run(visit.request.path_params["run_id"]), await visit.web.now()
    shown = run.failures[(number - 1) * PAGE : number * PAGE]
    facts = {"run": run, "now": now, "progress": page.progress(run, now), "failures": shown, "page": number}
    return View("run.html", facts | {"size": PAGE, "total": run.failures_total})


async def sites(visit: Visit) -> View | Response:
    """The sites in a state; what is searched for by its very id is shown at once."""
    text = plain(visit.values.get("q", "").strip())
    if text and await visit.web.site(text):
        return _to(f"/sites/{quote(text, safe='')}")
    state = parameters.read({"state": "failing", **visit.values}, "state")
    number, size = parameters.read(visit.values, "page"), page.SEARCHED if text else PAGE
    seen = await page.overview(visit.web)
    found = await page.search(visit.web, state, text, seen.now, (number - 1) * size, size)
    facts = {"state": state, "q": text, "found": found, "page": number, "size": size, "counts": seen.sites}
    return View("sites.html", facts | {"now": seen.now, "total": found.total})


async def one_site(visit: Visit) -> View:
    """What is known of a site."""
    site_id, web = visit.request.path_params["site_id"], visit.web
    if (site := await web.site(site_id)) is None:
        message = "Nothing is known of this site: it was never triggered, or it left the network."
        raise RestError(404, "rest_site_not_found", message)
    _, runs = await web.runs(0, PAGE)
    now = await web.now()
    facts = {"site": site, "state": site.state(now, web.settings.overdue_after), "now": now}
    return View("site.html", facts | {"history": await page.failures_of(web, site_id, runs)})


async def ask_to_sign_in(visit: Visit) -> View | Response:
    """The form; who needs none goes on."""
    then = _here(visit.values.get("next", "/"))
    if session.read(visit.request) or not filters.auth_required(visit.web.settings):
        return _to(then)
    return View("sign_in.html", {"next": then, "wrong": ""})


async def sign_in(visit: Visit) -> View | Response:
    """A token for a cookie; wrong ones count as they do everywhere."""
    request, web, then = visit.request, visit.web, _here(visit.values.get("next", "/"))
    session.check_origin(request)
    token = visit.values.get("token", "").strip()
    try:
        if token:
            await authenticate(request, token, "read", web.settings, web.redis)
    except RestError as error:
        return View("sign_in.html", {"next": then, "wrong": error.message}, error.status, error.headers)
    if (matched := matching(token.encode("utf-8", "surrogateescape"), web.settings.tokens)) is None:
        return View("sign_in.html", {"next": then, "wrong": "Type or paste a token."}, 403)
    response = _to(then)
    session.keep(response, request, session.begin(matched.name, matched.scope, token))
    return response


async def sign_out(visit: Visit) -> Response:
    """Take the cookie away."""
    response = _to("/sign-in")
    session.keep(response, visit.request, None)
    return response


def _here(path: str) -> str:
    """An address on this host and nowhere else, else the overview."""
    return path if re.fullmatch(r"/(?![/\\])[!-~]*", path) else "/"


async def dashboard(visit: Visit) -> Response:
    """rq-dashboard, which shows the queue."""
    return await rq_dashboard.answer(visit.request, visit.web)


async def asset(request: Request) -> Response:
    """The stylesheet and the script; their addresses change with their content."""
    if (found := page.assets().get(request.path_params["name"])) is None:
        return Response(status_code=404)
    return Response(found.content, 200, HEADERS | {"Cache-Control": "public, max-age=86400"}, found.kind)


_action = partial(_route, method="POST")
ROUTES = [
    _route("/", overview),
    _route("/runs", all_runs),
    _route("/runs/{run_id}", one_run),
    _route("/sites", sites),
    _route("/sites/{site_id}", one_site),
    _route("/sign-in", ask_to_sign_in, None),
    _action("/sign-in", sign_in, None),
    _action("/sign-out", sign_out),
    _action("/", run_now, "run"),  # where its answer is shown: who loads that page again must not press again
    _action("/runs/{run_id}", cancel, "run"),
    _route("/rq", dashboard),
    _route("/rq/{path:path}", dashboard),
    _action("/rq/{path:path}", dashboard, "run", check=rq_dashboard.check_script),
    Route("/static/{digest}/{name}", asset),
]
