"""The world of one process: everything that is built once, from the settings, and passed on."""

from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial

import structlog
from redis import Redis

from jobs import filters, runs
from jobs.addresses import AddressGuard
from jobs.engine import CurlEngine, Engine
from jobs.errors import FilterError, RunNotFound, SourceError
from jobs.log import LOGGED_LINES
from jobs.redis_connection import connect
from jobs.resolver import Resolver
from jobs.scripts import Scripts
from jobs.settings import Loaded, Settings, load
from jobs.sources import Source, open_source
from jobs.trigger import USER_AGENT
from jobs.walker import Walker

log = structlog.get_logger("all_sites_cron.run")


@dataclass(frozen=True)
class World:
    """`loaded`: settings with their origins. `open_source`, `new_engine`: replaced by tests."""

    loaded: Loaded
    redis: Redis
    scripts: Scripts
    guard: AddressGuard
    open_source: Callable[[], Source]
    new_engine: Callable[[Settings], Engine]

    @property
    def settings(self) -> Settings:
        """The settings alone."""
        return self.loaded.settings

    def walk(self, run_id: str, name: str, *, stop: Callable[[], bool], again: bool = False) -> str:
        """Walk a run in this process under `name` until it has ended or others have it; see Walker.walk."""
        settings = self.settings
        try:
            settings = filters.settings_after(settings, filters.PER_WALK)
        except FilterError as error:
            stop = partial(_raise, error)  # the walk then ends the run with it
        with closing(self.new_engine(settings)) as engine, closing(Resolver(self.guard, wake=engine.wake)) as resolver:
            walker = Walker(run_id, name, settings, self.scripts, self.open_source, engine, resolver, stop=stop)
            reply = walker.walk(again=again)
        if reply.finished:
            with suppress(RunNotFound):
                _log_end(runs.read(self.redis, run_id))
        return reply.status


def _log_end(run: runs.Run) -> None:
    if (more := run.errors + run.total("timeout") - LOGGED_LINES) > 0:
        log.warning("more sites failed", run_id=run.id, not_shown=more)
    seconds = ((run.ended_ms or 0) - (run.started_ms or 0)) / 1000
    why = {"reason": run.reason, "message": run.message} if run.reason else {}
    log.info("run ended", run_id=run.id, status=run.status, **run.figures, seconds=seconds, **why)


def _raise(error: Exception) -> bool:
    raise error


def build(environ: Mapping[str, str]) -> World:
    """The world as the environment describes it; raises SettingsError, FilterError."""
    loaded = load(environ)
    filters.load(loaded.settings.filters)
    settings = filters.settings_after(loaded.settings, filters.AT_START)
    warnings = (*loaded.warnings, *filters.warnings())
    loaded = replace(loaded, settings=settings, warnings=warnings, legacy=(*loaded.legacy, *filters.legacy()))
    redis = connect(settings)
    guard = AddressGuard(settings.allowed_networks)
    token = settings.feed_token.get_secret_value() if settings.feed_token else None
    source = partial(open_source, settings.sites or None, feed_token=token, guard=guard, verify=settings.ssl_verify)
    if settings.sites:  # its form is checked at start; whether it can be read shows when it is
        with suppress(SourceError):
            source().close()

    def engine(settings: Settings) -> Engine:
        return CurlEngine(timeout=settings.request_timeout, user_agent=USER_AGENT, verify=settings.ssl_verify)

    return World(loaded, redis, Scripts(redis, settings), guard, source, engine)
