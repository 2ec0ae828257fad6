"""Newer releases of this program, in a feed as GitHub's API lists releases (CONTRACT section 7, UPDATE_FEED)."""

import json
from typing import Any, NamedTuple

import structlog
from packaging.version import Version

from jobs import __version__, keys
from jobs.errors import OutboundError, SettingsError
from jobs.outbound import Outbound, tls_context
from jobs.plain_text import plain
from jobs.world import World

KEPT, FAILED_KEPT = 12 * 3600, 3600  # seconds an answer is good for, and an error
DEADLINE, REDIRECTS, MOST_BYTES = 30.0, 5, 50_000_000

log = structlog.get_logger("all_sites_cron.updates")


class Release(NamedTuple):
    """A release; version 0 stands for none. `url`: its page. `wheel`, `digest`: address and `sha256:…` of its wheel."""

    version: str = "0"
    url: str = ""
    wheel: str = ""
    digest: str = ""

    @property
    def newer(self) -> bool:
        """Than this program."""
        return Version(self.version) > Version(__version__)

    @property
    def wheel_name(self) -> str:
        """The file name of its wheel."""
        return f"all_sites_cron-{self.version}-py3-none-any.whl"


def ask(world: World) -> Release:
    """The newest release but drafts and pre-releases, asked for now; raises OutboundError."""
    body = fetch(world, world.settings.update_feed or "")
    try:
        given = json.loads(body)
        releases = [_release(one) for one in (given if isinstance(given, list) else [given])]
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise OutboundError("update feed: does not answer as GitHub lists releases") from None
    return max(filter(None, releases), key=lambda release: Version(release.version), default=Release())


def fetch(world: World, url: str) -> bytes:
    """What is at the address of the feed or of a wheel. Verified, whatever SSL_VERIFY says: it may be installed."""
    outbound = Outbound(world.guard, tls_context(world.settings.ssl_verify or True), DEADLINE, REDIRECTS)
    try:
        status, body = outbound.request("GET", url, {}, max_bytes=MOST_BYTES)
    except OutboundError as error:
        raise OutboundError(f"update feed: {error}") from None
    if status != 200:
        raise OutboundError(f"update feed: answer {status}")
    return body


def _release(given: dict[str, Any]) -> Release | None:
    if given["draft"] or given["prerelease"] or (version := Version(given["tag_name"])).is_prerelease:
        return None
    if not given["html_url"].startswith(("https://", "http://")):
        raise ValueError
    release = Release(str(version), plain(given["html_url"]))
    for asset in given["assets"]:
        if asset["name"] == release.wheel_name:
            return release._replace(wheel=str(asset["browser_download_url"]), digest=str(asset.get("digest")))
    return release


def refresh(world: World) -> Release | str:
    """As `cached`, but asks the feed before if no process has lately."""
    if world.redis.set(keys.UPDATE, json.dumps("it is being asked"), nx=True, ex=FAILED_KEPT):
        try:
            world.redis.set(keys.UPDATE, json.dumps(ask(world)[:2]), ex=KEPT)
        except (OutboundError, SettingsError) as error:
            log.warning("updates are not known", error=str(error))
            world.redis.set(keys.UPDATE, json.dumps(str(error)), ex=FAILED_KEPT)
    return cached(world)


def cached(world: World) -> Release | str:
    """The newest release as last heard of, without its wheel, or why none is known."""
    known = json.loads(world.redis.get(keys.UPDATE) or '"it was not asked yet"')
    return Release(*known) if isinstance(known, list) else known


def told(release: Release | str) -> str:
    """A line about it."""
    if isinstance(release, str):
        return f"Update: not known; {release}"
    new = f"{release.version}, {release.url}" if release.newer else f"none is newer than {__version__}"
    return f"Update: {new}"
