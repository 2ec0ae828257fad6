"""Where the list of public sites comes from: a file or a feed, chosen by the setting SITES."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, get_args

from jobs.addresses import AddressGuard
from jobs.errors import SettingsError
from jobs.sources.entries import Kind
from jobs.sources.feed import FeedSource
from jobs.sources.file import FileSource
from jobs.sources.index import SitePage
from jobs.sources.problems import Problem, Problems, masked

__all__ = ["Problem", "Problems", "SitePage", "Source", "open_source"]

_ALLOWED = "a file .txt, .csv or .json, or the http:// or https:// address of a feed"


class Source(Protocol):
    """The public sites of the network, read forwards by key. Used by one thread at a time."""

    @property
    def problems(self) -> Problems:
        """The entries left out so far."""

    @property
    def warnings(self) -> list[str]:
        """What the operator should know about the list, one sentence each."""

    def pages(self, after: str, size: int) -> Iterator[SitePage]:
        """Sites whose Site.key is greater than `after` ("" = all), in key order, 1 to `size` a page.

        Raises SourceError.
        """

    def remaining(self, after: str) -> int | None:
        """How many sites lie behind `after`; None when the source cannot tell. Raises SourceError."""

    def close(self) -> None:
        """Gives back files and connections."""


def open_source(sites: str, *, feed_token: str | None, guard: AddressGuard, verify: bool | str = True) -> Source:
    """The source that the setting SITES names; nothing is read yet. `verify`: the setting SSL_VERIFY.

    Raises SettingsError.
    """
    scheme, separator, _ = sites.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return FeedSource(sites, token=feed_token, guard=guard, verify=verify)
    path = Path(sites)
    for kind in get_args(Kind):
        if not separator and path.suffix.lower() == f".{kind}":
            return FileSource(path, kind)
    raise SettingsError(f"ALL_SITES_CRON_SITES is {masked(sites)}; allowed is {_ALLOWED}")
