"""The web process: an ASGI application built from the settings.

uvicorn service.app:create_app --factory
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from threading import Thread
from types import FrameType

import structlog
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from jobs.errors import FilterError, SettingsError
from jobs.log import configure
from jobs.world import World, build
from service.auth import require_token
from service.paths import WordPressPaths
from service.routes import HANDLERS, ROUTES
from service.web import Web

SWEEP_SECONDS = 5.0

log = structlog.get_logger("all_sites_cron.web")


def create_app(world: World | None = None) -> Starlette:
    """The application; without a world it builds one from the environment and sets logging up."""
    middleware = [Middleware(WordPressPaths)]
    page, signed_in = _page()
    app = Starlette(routes=[*ROUTES, *page], exception_handlers=HANDLERS, middleware=middleware, lifespan=_lifespan)
    app.state.signed_in = signed_in
    app.state.web = Web(world or _world_from(os.environ))
    return app


def _page() -> tuple[list[Route], Callable[..., str | None]]:
    """The operator's page, and who is signed in on it; without its extra a line that says how to get it."""
    if find_spec("console") and find_spec("jinja2"):
        from console import routes, session

        return routes.ROUTES, session.reader
    text = "The operator's page is an extra: pip install '.[console]', with rq-dashboard '.[console,dashboard]'\n"
    return [Route(path, PlainTextResponse(text, 404)) for path in ("/", "/rq")], lambda _: None


def _world_from(environ: Mapping[str, str]) -> World:
    """The world as the environment describes it; raises SystemExit with the reason, also where no token is set."""
    try:
        world = build(environ)
        required = require_token(world.settings)
    except (SettingsError, FilterError) as error:
        raise SystemExit(f"all-sites-cron: {error}") from None
    configure(world.settings.log_level)
    for warning in world.loaded.warnings:
        log.warning(warning)
    if not required:
        log.warning("no token is asked for", setting="ALL_SITES_CRON_REQUIRE_AUTH=false")
    return world


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Sweep at the start and every few seconds; when told to stop drain the walks, so that callers get an answer."""
    web: Web = app.state.web
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: FrameType | None) -> None:
        web.stopping.set()
        if callable(handler := before[signal.Signals(number)]):
            handler(number, frame)

    for number in before:
        signal.signal(number, stop)
    if web.settings.update_feed:
        Thread(target=web.watch_for_updates, daemon=True).start()
    sweeping = asyncio.create_task(_sweep_for_ever(web))
    try:
        yield
    finally:
        sweeping.cancel()
        await web.close()


async def _sweep_for_ever(web: Web) -> None:
    while True:
        try:
            await web.sweep()
        except RedisError as error:
            log.warning("Redis cannot be asked", error=str(error))
        await asyncio.sleep(SWEEP_SECONDS)
