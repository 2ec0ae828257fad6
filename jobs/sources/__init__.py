"""Where the list of public sites comes from: a file, a feed or a database, chosen by the setting SITES."""

from pathlib import Path
from typing import get_args

from jobs.addresses import AddressGuard
from jobs.errors import SettingsError
from jobs.mysql import Database
from jobs.sources.database import DatabaseSource
from jobs.sources.entries import Kind, Problems, masked
from jobs.sources.feed import FeedSource
from jobs.sources.listing import DUE_PAGE, FileSource, SitePage, Source, State

__all__ = ["DUE_PAGE", "Problems", "SitePage", "Source", "State", "open_source"]


def open_source(sites: str | None, *, feed_token: str | None, guard: AddressGuard, verify: bool | str = True) -> Source:
    """The source that the setting SITES names; nothing is read yet. `verify`: the setting SSL_VERIFY.

    Raises SettingsError.
    """
    if sites is None:
        give = "a file (.txt, .csv or .json as `wp site list` prints it), the https:// address of a feed"
        raise SettingsError(f"ALL_SITES_CRON_SITES is not set: give {give}, or mysql://user:password@host/database.")
    scheme, separator, _ = sites.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return FeedSource(sites, token=feed_token, guard=guard, verify=verify)
    if separator and scheme.lower() == "mysql":
        return DatabaseSource(Database.from_url(sites))
    path = Path(sites)
    for kind in get_args(Kind):
        if not separator and path.suffix.lower() == f".{kind}":
            return FileSource(path, kind)
    allowed = "a file .txt, .csv or .json, the http:// or https:// address of a feed, or mysql://"
    raise SettingsError(f"ALL_SITES_CRON_SITES is {masked(sites)}; allowed is {allowed}")
