"""`sites`: the list a run would walk."""

import math
from collections.abc import Iterable
from contextlib import closing
from threading import Event
from urllib.parse import urlsplit

import typer

from jobs.addresses import AddressGuard
from jobs.resolver import Address, Answer, Blocked, Pair, Resolver, Unresolved
from service.commands.environment import OK, SOME_FAILED, complain, world

PAGE = 1000
PROBLEMS_SHOWN = 20


def sites(*, check: bool) -> int:
    """Print the public sites, one a line, its fields behind tabs."""
    here = world()
    bad = count = 0
    with closing(here.open_source()) as source:
        for page in source.pages("", PAGE):
            reasons = uncallable([site.url for site in page.sites], here.guard) if check else {}
            for site in page.sites:
                typer.echo("\t".join(filter(None, (site.id, site.url, reasons.get(site.url)))))
            count += len(page.sites)
            bad += len(reasons)
    problems = source.problems
    for text in [*source.warnings, *map(": ".join, problems.first[:PROBLEMS_SHOWN])]:
        complain(text, style="yellow")
    checked = f", {bad} cannot be called" if check else ""
    complain(f"{count} public sites, {problems.count} bad entries{checked}", style="dim")
    return SOME_FAILED if bad or problems.count else OK


def uncallable(urls: Iterable[str], guard: AddressGuard) -> dict[str, str]:
    """URL → why it cannot be called, as far as its name tells; without those that nothing speaks against."""
    answers = look_up(urls, guard)
    return {url: why_not(url, answer) for url, answer in answers.items() if not isinstance(answer, Address)}


def why_not(url: str, answer: Unresolved | Blocked) -> str:
    """What a person can do with such an answer."""
    if isinstance(answer, Blocked):
        return f"{answer.ip} is not public; ALL_SITES_CRON_ALLOWED_NETWORKS={answer.allow} would allow it"
    return f"the name {host_and_port(url)[0]} cannot be resolved: {answer.reason}"


def look_up(urls: Iterable[str], guard: AddressGuard) -> dict[str, Answer]:
    """URL → where it leads; all names are looked up at the same time, for as long as the system takes."""
    pairs = {url: host_and_port(url) for url in urls}
    ready = Event()
    with closing(Resolver(guard, wake=ready.set, patience=math.inf)) as resolver:
        answers = {pair: resolver.ask(*pair) for pair in pairs.values()}
        while None in answers.values():
            ready.wait()
            ready.clear()
            answers |= {pair: resolver.ask(*pair) for pair in resolver.collect()}
    return {url: answer for url, pair in pairs.items() if (answer := answers[pair])}


def host_and_port(url: str) -> Pair:
    """What a site's address connects to."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
