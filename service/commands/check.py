"""`check`: the doctor, and the Procfile's release step. Takes over what the plugin left, else changes nothing."""

from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import Literal, NamedTuple

from redis.exceptions import RedisError

from jobs import lifecycle, scripts
from jobs.errors import SettingsError, SourceError
from jobs.sources import SitePage
from jobs.world import World
from service.auth import require_token
from service.commands import clock
from service.commands.environment import OK, UNREACHABLE, say, world
from service.commands.sites import PAGE, uncallable

OLDEST_REDIS = (6, 2)
LOOKED_UP = 20  # sites whose names are looked up
STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


class Finding(NamedTuple):
    """One thing that was looked at. `remedy`: what to do about it."""

    level: Literal["ok", "warning", "error"]
    seen: str
    remedy: str = ""


def check() -> int:
    """Print the findings; exit code 69 when one is an error (wrong settings have ended it with 2 before)."""
    here = world()
    require_token(here.settings)
    valid = Finding("ok", "the settings are valid")
    worst = OK
    for finding in chain([valid], _redis(here), _sites(here)):
        say(f"{finding.level:<8}", STYLES[finding.level], end="")
        say(finding.seen)
        if finding.remedy:
            say(f"{'':<8}→ {finding.remedy}")
        if finding.level == "error":
            worst = UNREACHABLE
    return worst


def _redis(here: World) -> Iterator[Finding]:
    try:
        version = str(here.redis.info("server")["redis_version"])
        policy = str(here.redis.info("memory").get("maxmemory_policy", "unknown"))
        workers = scripts.workers(here.redis)
    except RedisError as error:
        remedy = "Check REDIS_URL and that the server is up."
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            remedy = "Set ALL_SITES_CRON_REDIS_TLS_VERIFY to its CA's path, or to false (as Heroku's Redis needs)."
        yield Finding("error", f"Redis cannot be asked: {error}", remedy)
        return
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        yield Finding("error", f"Redis is {version}", "Version 6.2 or newer is needed.")
    else:
        yield Finding("ok", f"Redis answers, version {version}")
    if policy not in ("noeviction", "unknown"):
        remedy = "Set maxmemory-policy to noeviction: a run, a lock or a job could be dropped when memory runs short."
        yield Finding("warning", f"maxmemory-policy is {policy}", remedy)
    if workers or not here.settings.use_redis_queue:
        yield Finding("ok", f"{workers} workers listen")
    else:
        remedy = "Start one: the Procfile's worker line, or `heroku ps:scale worker=1`. Deferred runs wait until then."
        yield Finding("warning", "no worker is listening", remedy)
    for seen, remedy in chain(clock.seen(here), lifecycle.migrate(here), lifecycle.legacy_uses(here.redis)):
        yield Finding("warning" if remedy else "ok", seen, remedy)


def _sites(here: World) -> Iterator[Finding]:
    try:
        with closing(here.open_source()) as source:
            page = next(source.pages("", PAGE), SitePage((), ""))
            count = len(page.sites) + (source.remaining(page.cursor) or 0)
    except (SettingsError, SourceError) as error:
        yield Finding("warning", str(error), "Until it can be read, every run ends as failed and nothing is called.")
        return
    if count:
        yield Finding("ok", f"the site source lists {count} public sites")
    else:
        yield Finding("warning", "the site source lists no public site", "Is the list complete? See `sites`.")
    for warning in source.warnings:
        yield Finding("warning", warning)
    for first in source.problems.first[:1]:
        yield Finding("warning", f"{source.problems.count} bad entries, the first: {first}", "See `sites`.")
    for url, why in uncallable([site.url for site in page.sites[:LOOKED_UP]], here.guard).items():
        yield Finding("warning", f"{url} cannot be called", why)
