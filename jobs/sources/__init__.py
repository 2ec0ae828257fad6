"""Where the list of public sites comes from: a file, a feed or a database, chosen by the setting SITES."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, get_args

from jobs.addresses import AddressGuard
from jobs.errors import SettingsError
from jobs.mysql import Database
from jobs.sources.database import DatabaseSource
from jobs.sources.entries import Kind, Problems, masked
from jobs.sources.feed import FeedSource
from jobs.sources.listing import DUE_PAGE, FileSource, SitePage, State

__all__ = ["DUE_PAGE", "Problems", "SitePage", "Source", "State", "open_source"]


class Source(Protocol):
    """The public sites of the network, read forwards by key. Used by one thread, for one reading at a time.

    `problems`: the entries left out so far. `warnings`: what the operator should know, one sentence each.
    `excluded`: how many entries each of the flags `public`, `archived`, `deleted`, `spam` left out so far.
    """

    problems: Problems
    warnings: list[str]
    excluded: Counter[str]
    knows_due: bool  # whether its sites have due times and `states` works; a feed knows after its first page

    def pages(self, after: str, size: int) -> Iterator[SitePage]:
        """Sites whose Site.key is greater than `after` ("" = all), in key order, `size` of them a page.

        A source that knows due times reads DUE_PAGE a page if that is more; a page of such a source may be empty.
        Raises SourceError.
        """

    def states(self, ids: Sequence[str]) -> tuple[int, Mapping[str, State]]:
        """(Unix seconds now on the network's clock, site id → its cron now) of at most DUE_PAGE sites.

        A site that is not there any more, or that the source cannot tell of, is left out. Raises SourceError.
        """

    def remaining(self, after: str) -> int | None:
        """How many sites lie behind `after`; None until the source has been read to its end."""

    def close(self) -> None:
        """Gives back what the source holds."""


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
