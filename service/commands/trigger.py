"""`trigger SITE`: one site, explained to somebody at 3 a.m."""

import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from itertools import chain

from jobs import filters
from jobs.outcomes import Outcome
from jobs.resolver import Address, Blocked
from jobs.sites import NEVER, BadUrl, Site, host_and_port, normalise_url
from jobs.sources import Source, State
from jobs.trigger import Verdict, judge, trigger_url
from jobs.verifier import LOCK_SECONDS
from jobs.world import World
from service.commands.environment import OK, SOME_FAILED, USAGE, complain, say, world
from service.commands.sites import PAGE, look_up, why_not

ADVICE = {
    Outcome.DISPATCHED: "The server took the call. With PHP-FPM it answers before WordPress loads, so a 2xx alone does "
    "not prove that the events ran: look at the site's schedule (wp cron event list --url=URL).",
    Outcome.TIMEOUT: "The call was sent and no answer came in time. The site may be working on it: a long event is not "
    "an error. If it is always so, raise ALL_SITES_CRON_REQUEST_TIMEOUT or look at the server's load.",
    Outcome.DNS: "The name has no address. Is the domain still registered, and does this host's resolver work? A site "
    "that is gone should be archived in the network.",
    Outcome.CONNECT: "Nothing listens there, or a firewall drops the packets. Is the web server up, is the port right?",
    Outcome.TLS: "TLS fails. Renew the certificate, or give a private CA as ALL_SITES_CRON_SSL_VERIFY=/path/ca.pem.",
    Outcome.RESET: "The server closed the connection without an answer: a crash, a proxy or a firewall in between.",
    Outcome.REDIRECT: "wp-cron.php must answer itself. Put the address that answers into the site list (siteurl).",
    Outcome.HTTP_4XX: "Something before WordPress refuses: a login, a WAF. Let the User-Agent all-sites-cron pass.",
    Outcome.HTTP_5XX: "PHP or the server in front of it fails: look at its error log; 502 to 504 mean too few workers.",
    Outcome.BLOCKED: "This service does not call private addresses unless told so.",
}

LOOK_SECONDS = 10.0  # how long the schedule may take to show what the call did
STUCK = "Nothing that was due has run: look at its PHP error log; is wp-cron.php answered by a cache or another site?"


def trigger(site: str) -> int:
    """Trigger one site and explain."""
    here = world(redis=False)
    url = ""
    with suppress(BadUrl):
        url = normalise_url(site)
    if not here.settings.sites and url:
        return _explain(here, Site("-", url), None)
    with closing(here.open_source()) as source:
        for found in chain.from_iterable(page.sites for page in source.pages("", PAGE)):
            if site == found.id or url == found.url:
                return _explain(here, found, source if source.knows_due else None)
    complain(f"{site!r} is no public site of this network; `all-sites-cron sites` lists each with its id and URL.")
    return USAGE


def _explain(here: World, site: Site, source: Source | None) -> int:
    """Call it. `source`: where its schedule is read before and after; None where none knows it."""
    _tell("site", f"{site.id}  {site.url}")
    before = _schedule(source, site, "before") if source else None
    verdict = _call(here, site)
    if verdict.follow:
        _tell("redirect", verdict.detail)
        verdict = _call(here, Site(site.id, verdict.follow))
    outcome, detail = verdict.outcome, verdict.detail
    named = f"{outcome.kind}: {outcome.reason}" if outcome.reason else outcome.kind
    _tell("outcome", f"{named} ({detail})" if detail else named)
    meaning, well = ADVICE[outcome], outcome in (Outcome.DISPATCHED, Outcome.TIMEOUT)
    if source and before and well:
        meaning, well = _verified(source, site, *before)
    _tell("meaning", meaning)
    return OK if well else SOME_FAILED


def _schedule(source: Source, site: Site, when: str) -> tuple[int, State] | None:
    """(Unix seconds of the network's clock, the site's cron), told; None if the source cannot tell."""
    now, states = source.states([site.id])
    if (state := states.get(site.id)) is None:
        return None
    due = "nothing is scheduled" if state.due == NEVER else f"the next event is due {_moment(state.due, now)}"
    _tell(when, due + (f"; its cron is locked since {_moment(state.locked, now)}" if state.locked else ""))
    return now, state


def _moment(at: float, now: int) -> str:
    words = f"{timedelta(seconds=abs(int(at) - now))}"
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC ({f'{words} ago' if at <= now else f'in {words}'})"


def _verified(source: Source, site: Site, asked: int, before: State) -> tuple[str, bool]:
    """What the schedule says, once events have left it or LOOK_SECONDS have passed; and whether that is well."""
    if before.due > asked:
        return "Nothing was due, so that nothing had to run.", True
    ends = time.monotonic() + LOOK_SECONDS
    while source.states([site.id])[1].get(site.id, before).due <= asked and time.monotonic() < ends:
        time.sleep(0.5)
    if not (seen := _schedule(source, site, "after")):
        return "The site cannot be found any more.", False
    now, after = seen
    if after.due > asked:
        return "Verified: WordPress has started every event that was due.", True
    if now - after.locked < LOCK_SECONDS:
        return "Its cron is at work, or one that died holds the lock (60 s): look again in a minute.", True
    return STUCK, False


def _call(here: World, site: Site) -> Verdict:
    """One request as a run would send it, told as it goes; a redirect is not followed."""
    url, settings = site.url, filters.settings_after(here.settings, filters.PER_WALK)
    address, headers = filters.request_after(site, trigger_url(url))
    _tell("call", f"POST {address}")
    answer = look_up([url], here.guard)[url]
    if not isinstance(answer, Address):
        return Verdict(Outcome.BLOCKED if isinstance(answer, Blocked) else Outcome.DNS, why_not(url, answer))
    checked = "verified" if settings.ssl_verify else "not verified (ALL_SITES_CRON_SSL_VERIFY)"
    tls = f"TLS {checked}" if url.startswith("https:") else "no TLS"
    _tell("address", f"{answer.ip} port {host_and_port(url)[1]}, {tls}")
    with closing(here.new_engine(settings)) as engine:
        engine.start(None, address, answer.ip, headers)
        while not (results := engine.poll(1.0)):
            continue
    (result,) = results
    _tell("answer", f"{result.status or 'none'} after {result.seconds * 1000:.0f} ms")
    return judge(result, url)


def _tell(label: str, text: str) -> None:
    say(f"{label:<9} {text}")
