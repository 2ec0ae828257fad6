"""The web process: an ASGI application built from the settings.

uvicorn service.app:create_app --factory
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import FrameType

import structlog
from redis.exceptions import RedisError
from starlette.applications import Starlette

from jobs import scripts
from jobs.errors import SettingsError
from jobs.log import configure
from jobs.redis_connection import connect_async
from jobs.settings import Settings
from jobs.world import World, build
from service.paths import WordPressPaths
from service.routes import HANDLERS, ROUTES
from service.walks import Walks
from service.web import Web

SWEEP_SECONDS = 5.0

log = structlog.get_logger("all_sites_cron.web")


def create_app(world: World | None = None) -> Starlette:
    """The application; without a world it builds one from the environment and sets logging up.

    Raises SettingsError, also when no token is configured and REQUIRE_AUTH=false was not said.
    """
    if world is None:
        world = world_from(os.environ)
    redis = connect_async(world.settings)
    web = Web(
        world,
        redis,
        Walks(world),
        redis.register_script(scripts.text("admit", world.settings)),
        redis.register_script(scripts.text("sweep", world.settings)),
    )
    app = Starlette(routes=ROUTES, exception_handlers=HANDLERS, lifespan=_lifespan)
    app.add_middleware(WordPressPaths)
    app.state.web = web
    return app


def world_from(environ: Mapping[str, str]) -> World:
    """The world as the environment describes it, with logging set up; raises SystemExit with the reason."""
    try:
        world = build(environ)
        _check_tokens(world.settings)
    except SettingsError as error:
        raise SystemExit(f"all-sites-cron: {error}") from None
    configure(world.settings.log_level)
    for warning in world.loaded.warnings:
        log.warning(warning)
    if not world.settings.auth_required:
        log.warning("no token is asked for", setting="ALL_SITES_CRON_REQUIRE_AUTH=false")
    return world


def _check_tokens(settings: Settings) -> None:
    if settings.auth_required and not settings.tokens:
        raise SettingsError(
            "ALL_SITES_CRON_AUTH_TOKEN is not set: anybody could start runs. Set it, "
            "or say ALL_SITES_CRON_REQUIRE_AUTH=false where only trusted callers can connect."
        )


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Sweep at the start and every few seconds; when told to stop drain the walks, so that callers get an answer."""
    web: Web = app.state.web
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: FrameType | None) -> None:
        web.walks.stop()
        if callable(handler := before[signal.Signals(number)]):
            handler(number, frame)

    for number in before:
        signal.signal(number, stop)
    sweeping = asyncio.create_task(_sweep_for_ever(web))
    try:
        yield
    finally:
        sweeping.cancel()
        web.walks.stop()
        await web.walks.ended()
        await web.redis.aclose()


async def _sweep_for_ever(web: Web) -> None:
    while True:
        try:
            await web.sweep()
        except RedisError as error:
            log.warning("Redis cannot be asked", error=str(error))
        await asyncio.sleep(SWEEP_SECONDS)
