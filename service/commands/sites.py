"""`sites` and `run --dry-run`: the list a run would walk."""

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import timedelta
from threading import Event
from typing import cast

import structlog
import typer

from jobs import filters, health, keys
from jobs.addresses import AddressGuard, refused
from jobs.lister import Lease, listing, log_problems
from jobs.resolver import Address, Answer, Blocked, Resolver, Unresolved
from jobs.sites import Site, host_and_port
from jobs.sources import Source
from jobs.world import World
from service.commands.environment import OK, SOME_FAILED, complain, world

PAGE = 1000
PROBLEMS_SHOWN = 20

log = structlog.get_logger("all_sites_cron.dry_run")


def sites(*, check: bool, overdue: bool) -> int:
    """Print the public sites, one a line, its fields behind tabs."""
    if overdue:
        return _overdue(world())
    here = world(redis=False)
    bad = count = 0
    with closing(here.open_source()) as source:
        for page in source.pages("", PAGE):
            bad += _show(page.sites, here.guard if check else None)
            count += len(page.sites)
    for text in [*source.warnings, *source.problems.first[:PROBLEMS_SHOWN]]:
        complain(text, style="yellow")
    checked = f", {bad} cannot be called" if check else ""
    complain(f"{count} public sites, {_left_out(source)}{checked}", style="dim")
    return SOME_FAILED if bad or source.problems.count else OK


def _overdue(here: World) -> int:
    """Print the sites whose events have been due for longer than OVERDUE_AFTER, the longest first."""
    now, _ = here.redis.time()
    key, until = health.chosen("overdue", now, here.settings.overdue_after)
    ids = [site_id.decode() for site_id in cast(list[bytes], here.redis.zrangebyscore(key, "-inf", until))]
    pipeline = here.redis.pipeline(transaction=False)
    health.ask(pipeline, ids)
    for site in health.answers(ids, pipeline.execute()):
        late = timedelta(seconds=now - (site.due or now))
        typer.echo("\t".join((site.site_id, site.url or "-", f"due for {late}", site.reason or "overdue")))
    complain(f"{len(ids)} sites are overdue", style="dim")
    return SOME_FAILED if ids else OK


def dry_run() -> int:
    """Print the sites that the next run's own listing gives, as `sites --check` does, and where a capped run begins."""
    here = world()
    settings = filters.settings_after(here.settings, filters.PER_WALK)
    cap, bad, count, idle = settings.number_of_sites, 0, 0, 0
    cursor = text.decode() if cap and isinstance(text := here.redis.get(keys.CURSOR), bytes) else ""
    with closing(here.open_source()) as source:
        try:
            for listed in listing(source, Lease("", cursor, cap or None, cursor, fresh=True), settings):
                bad += _show(listed.taken, here.guard)
                count += len(listed.taken)
                idle += listed.not_due
        finally:
            log_problems(source, settings, log)
    said = f"{count - bad} sites would be called; {bad} cannot be called, {idle} have nothing due, {_left_out(source)}"
    if cap:
        begin, goes_on = (
            f"behind {at.lstrip('0')}" if at else "at the start" for at in (cursor, listed.last["goes_on"])
        )
        said += f"; NUMBER_OF_SITES={cap}: begins {begin}, the next run {goes_on}"
    complain(said, style="dim")
    return OK


def _show(sites: Sequence[Site], guard: AddressGuard | None) -> int:
    """Print them, with a guard also why some cannot be called; how many these are."""
    reasons = uncallable([site.url for site in sites], guard) if guard else {}
    for site in sites:
        typer.echo("\t".join(filter(None, (site.id, site.url, reasons.get(site.url)))))
    return len(reasons)


def _left_out(source: Source) -> str:
    flags = (f", {n} {flag.replace('public', 'not public')}" for flag, n in source.excluded.items())
    return f"{source.problems.count} bad entries{''.join(flags)}"


def uncallable(urls: Iterable[str], guard: AddressGuard) -> dict[str, str]:
    """URL → why it cannot be called, as far as its name tells; without those that nothing speaks against."""
    answers = look_up(urls, guard)
    return {url: why_not(url, answer) for url, answer in answers.items() if not isinstance(answer, Address)}


def why_not(url: str, answer: Unresolved | Blocked) -> str:
    """What a person can do with such an answer."""
    if isinstance(answer, Blocked):
        return refused(answer.ip, answer.allow)
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
