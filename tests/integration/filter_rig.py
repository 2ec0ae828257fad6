"""Modules of filters as an operator has them: a file on PYTHONPATH, named in ALL_SITES_CRON_FILTERS or installed."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

from tests.integration.stack import ROOT, Stack

_IMPORTS = "from pathlib import Path\n\nfrom jobs.filters import add_action, add_filter\n\n"


def write(stack: Stack, code: str, name: str = "mine") -> Path:
    """A module that every process started from now on can import. `code` may use add_filter and add_action."""
    path = stack.folder / f"{name}.py"
    path.write_text(_IMPORTS + dedent(code))
    stack.environ["PYTHONPATH"] = f"{stack.folder}:{ROOT}"
    return path


def use_filters(stack: Stack, code: str, name: str = "mine") -> None:
    """The module of filters that the processes started from now on load."""
    write(stack, code, name)
    stack.set(filters=name)


def install(stack: Stack, entry: str) -> None:
    """A distribution with one entry point of the group, `name = module`."""
    folder = stack.folder / "some_filters-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: some-filters\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[all_sites_cron.filters]\n{entry}\n")
    stack.environ["PYTHONPATH"] = f"{stack.folder}:{ROOT}"


def list_sites(stack: Stack, urls: Sequence[str]) -> None:
    """A site list of these, with the ids 1, 2 and on."""
    path = stack.folder / "sites.csv"
    rows = [f"{number},{url},1,0,0,0" for number, url in enumerate(urls, 1)]
    path.write_text("\n".join(["blog_id,url,public,archived,deleted,spam", *rows, ""]))
    stack.set(sites=path)
