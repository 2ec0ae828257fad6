"""The world of one process: everything that is built once, from the settings, and passed on."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

import structlog
from redis import Redis

from jobs import runs
from jobs.addresses import AddressGuard
from jobs.engine import CurlEngine, Engine
from jobs.errors import RunNotFound, SettingsError
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
    new_engine: Callable[[], Engine]

    @property
    def settings(self) -> Settings:
        """The settings alone."""
        return self.loaded.settings

    def walk(self, run_id: str, name: str, *, stop: Callable[[], bool], again: bool = False) -> str:
        """Walk a run in this process under `name` until it has ended or others have it; see Walker.walk."""
        with closing(self.new_engine()) as engine, closing(Resolver(self.guard, wake=engine.wake)) as resolver:
            walker = Walker(run_id, name, self.settings, self.scripts, self.open_source, engine, resolver, stop=stop)
            reply = walker.walk(again=again)
        if reply.finished:
            self._log_end(run_id)
        return reply.status

    def _log_end(self, run_id: str) -> None:
        try:
            run = runs.read(self.redis, run_id)
        except RunNotFound:
            return
        seconds = ((run.ended_ms or 0) - (run.started_ms or 0)) / 1000
        log.info(
            "run ended",
            run_id=run_id,
            status=run.status,
            count=run.count,
            dispatched=run.total("dispatched"),
            timeouts=run.total("timeout"),
            skipped=run.total("skipped"),
            errors=run.errors,
            seconds=seconds,
            **({"reason": run.reason, "message": run.message} if run.reason else {}),
        )


def build(environ: Mapping[str, str]) -> World:
    """The world as the environment describes it; raises SettingsError."""
    loaded = load(environ)
    settings = loaded.settings
    redis = connect(settings)
    guard = AddressGuard(settings.allowed_networks)
    token = settings.feed_token.get_secret_value() if settings.feed_token else None

    def source() -> Source:
        if not settings.sites:
            raise SettingsError(
                "ALL_SITES_CRON_SITES is not set: give a file (.txt, .csv or .json as `wp site list` prints it) "
                "or the https:// address of a feed."
            )
        return open_source(settings.sites, feed_token=token, guard=guard, verify=settings.ssl_verify)

    def engine() -> Engine:
        return CurlEngine(timeout=settings.request_timeout, user_agent=USER_AGENT, verify=settings.ssl_verify)

    return World(loaded, redis, Scripts(redis, settings), guard, source, engine)
