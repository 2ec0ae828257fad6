"""`check`: the doctor, and the Procfile's release step. Takes over what the plugin left, else changes nothing."""

from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import chain

from redis.exceptions import NoPermissionError, RedisError

from jobs import keys, lifecycle, scripts
from jobs.errors import SettingsError, SourceError
from jobs.sources import SitePage
from jobs.world import World
from service.auth import require_token
from service.commands import clock
from service.commands.environment import OK, UNREACHABLE, say, world
from service.commands.sites import PAGE, uncallable

OLDEST_REDIS = (6, 2)
STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


def check() -> int:
    """Print the findings; exit code 69 when one is an error (wrong settings have ended it with 2 before)."""
    here = world()
    require_token(here.settings)
    worst = OK
    for level, seen, remedy in chain([("ok", "the settings are valid", "")], _redis(here), _sites(here)):
        say(f"{level:<8}", STYLES[level], end="")
        say(seen)
        if remedy:
            say(f"{'':<8}→ {remedy}")
        if level == "error":
            worst = UNREACHABLE
    return worst


def _redis(here: World) -> Iterator[tuple[str, str, str]]:
    try:
        version = str(here.redis.info("server")["redis_version"])
        policy = str(here.redis.info("memory").get("maxmemory_policy", "unknown"))
        workers = scripts.workers(here.redis)
        with suppress(NoPermissionError):  # a user that may only read is no server that takes no writes
            here.redis.setrange(keys.LOCK, 0, "")  # changes nothing, and is refused where any write is
    except RedisError as error:
        remedy = "Check REDIS_URL (password; the primary, no replica) and that the server is up and has memory left."
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            remedy = "Set ALL_SITES_CRON_REDIS_TLS_VERIFY to its CA's path, or to false (as Heroku's Redis needs)."
        yield "error", f"Redis cannot be asked: {error}", remedy
        return
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        yield "error", f"Redis is {version}", "Version 6.2 or newer is needed."
    else:
        yield "ok", f"Redis answers, version {version}", ""
    if policy not in ("noeviction", "unknown"):
        remedy = "Set maxmemory-policy to noeviction: a run, a lock or a job could be dropped when memory runs short."
        yield "warning", f"maxmemory-policy is {policy}", remedy
    if workers or not here.settings.use_redis_queue:
        yield "ok", f"{workers} workers listen", ""
    else:
        remedy = "Start one: the Procfile's worker line, or `heroku ps:scale worker=1`. Deferred runs wait until then."
        yield "warning", "no worker is listening", remedy
    for seen, remedy in chain(clock.seen(here), lifecycle.migrate(here), lifecycle.legacy_uses(here.redis)):
        yield "warning" if remedy else "ok", seen, remedy


def _sites(here: World) -> Iterator[tuple[str, str, str]]:
    try:
        with closing(here.open_source()) as source:
            page = next(source.pages("", PAGE), SitePage((), ""))
            count = len(page.sites) + (source.remaining(page.cursor) or 0)
    except (SettingsError, SourceError) as error:
        yield "warning", str(error), "Until it can be read, every run ends as failed and nothing is called."
        return
    if count:
        yield "ok", f"the site source lists {count} public sites", ""
    else:
        yield "warning", "the site source lists no public site", "Is the list complete? See `sites`."
    for warning in source.warnings:
        yield "warning", warning, ""
    for first in source.problems.first[:1]:
        yield "warning", f"{source.problems.count} bad entries, the first: {first}", "See `sites`."
    for url, why in uncallable([site.url for site in page.sites[:20]], here.guard).items():  # the first are looked up
        yield "warning", f"{url} cannot be called", why
