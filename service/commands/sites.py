"""`sites`: the list a run would walk."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from urllib.parse import urlsplit

import typer

from jobs.addresses import AddressGuard
from jobs.errors import SettingsError, SourceError
from jobs.sites import Site
from jobs.sources import Source
from service.commands.environment import OK, SOME_FAILED, UNREACHABLE, USAGE, complain, world

PAGE = 1000
LOOK_UPS = 64  # at once
PROBLEMS_SHOWN = 20


def every(source: Source) -> Iterator[Site]:
    """All public sites of a source, in the order they are walked."""
    for page in source.pages("", PAGE):
        yield from page.sites


def verdict(site: Site, guard: AddressGuard) -> str | None:
    """Why a site cannot be called, from its name alone; None when nothing speaks against it."""
    parts = urlsplit(site.url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"the name {parts.hostname} cannot be resolved: {error}"
    addresses = [str(entry[4][0]) for entry in found]
    refusals = [guard.refusal(address) for address in addresses]
    if refusals and all(refusals):
        return f"{addresses[0]} is not a public address; ALL_SITES_CRON_ALLOWED_NETWORKS={refusals[0]} would allow it"
    return None


def sites(*, check: bool) -> int:
    """Print the public sites, one a line, its fields behind tabs; the exit code."""
    here = world()
    bad = count = 0
    try:
        with closing(here.open_source()) as source:
            listed = every(source)
            while batch := list(islice(listed, PAGE)):
                count += len(batch)
                reasons = verdicts(batch, here.guard) if check else [None] * len(batch)
                for site, why in zip(batch, reasons, strict=True):
                    typer.echo(f"{site.id}\t{site.url}" + (f"\t{why}" if why else ""))
                    bad += why is not None
            problems = source.problems
            for warning in source.warnings:
                complain(warning, style="yellow")
    except SettingsError as error:
        complain(str(error))
        return USAGE
    except SourceError as error:
        complain(str(error))
        return UNREACHABLE
    for problem in problems.first[:PROBLEMS_SHOWN]:
        complain(f"{problem.where}: {problem.text}", style="yellow")
    complain(
        f"{count} public sites, {problems.count} bad entries" + (f", {bad} cannot be called" if check else ""),
        style="dim",
    )
    return SOME_FAILED if bad or problems.count else OK


def verdicts(batch: list[Site], guard: AddressGuard) -> list[str | None]:
    """The verdict on each of these sites; their names are looked up at the same time."""
    with ThreadPoolExecutor(LOOK_UPS) as pool:
        return list(pool.map(lambda site: verdict(site, guard), batch))
