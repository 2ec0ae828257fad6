"""`trigger SITE`: one site, explained to somebody at 3 a.m."""

from contextlib import closing, suppress
from itertools import chain

from jobs import filters
from jobs.outcomes import Outcome
from jobs.resolver import Address, Blocked
from jobs.sites import BadUrl, Site, normalise_url
from jobs.trigger import Verdict, judge, trigger_url
from jobs.world import World
from service.commands.environment import OK, SOME_FAILED, USAGE, complain, say, world
from service.commands.sites import PAGE, host_and_port, look_up, why_not

ADVICE = {
    Outcome.DISPATCHED: "The server took the call. With PHP-FPM it answers before WordPress loads, so a 2xx alone does "
    "not prove that the events ran: look at the site's schedule (wp cron event list --url=URL).",
    Outcome.TIMEOUT: "The call was sent and no answer came in time. The site may be working on it: a long event is not "
    "an error. If it is always so, raise ALL_SITES_CRON_REQUEST_TIMEOUT or look at the server's load.",
    Outcome.DNS: "The name has no address. Is the domain still registered, and does this host's resolver work? A site "
    "that is gone should be archived in the network.",
    Outcome.CONNECT: "Nothing listens there, or a firewall drops the packets. Is the web server up, is the port right?",
    Outcome.TLS: "The certificate or the handshake is not accepted. Renew the certificate; for a private CA give its "
    "bundle as ALL_SITES_CRON_SSL_VERIFY=/path/ca.pem.",
    Outcome.RESET: "The server closed the connection without an answer: a crash, a proxy or a firewall in between.",
    Outcome.REDIRECT: "wp-cron.php must answer itself. Put the address that answers into the site list (siteurl).",
    Outcome.HTTP_4XX: "Something before WordPress refuses: a login, a WAF, a rule for wp-cron.php. Let the User-Agent "
    "all-sites-cron pass.",
    Outcome.HTTP_5XX: "PHP or the server in front of it fails: look at its error log; 502 to 504 mean too few workers.",
    Outcome.BLOCKED: "This service does not call private addresses unless told so.",
}


def trigger(site: str) -> int:
    """Trigger one site and explain."""
    here = world(redis=False)
    found = _find(here, site)
    if found is None:
        complain(f"{site!r} is no public site of this network; `all-sites-cron sites` lists each with its id and URL.")
        return USAGE
    _tell("site", f"{found.id}  {found.url}")
    verdict = _call(here, found)
    if verdict.follow:
        _tell("redirect", verdict.detail)
        verdict = _call(here, Site(found.id, verdict.follow))
    outcome, detail = verdict.outcome, verdict.detail
    named = f"{outcome.kind}: {outcome.reason}" if outcome.reason else outcome.kind
    _tell("outcome", f"{named} ({detail})" if detail else named)
    _tell("meaning", ADVICE[outcome])
    return OK if outcome in (Outcome.DISPATCHED, Outcome.TIMEOUT) else SOME_FAILED


def _find(here: World, wanted: str) -> Site | None:
    url = ""
    with suppress(BadUrl):
        url = normalise_url(wanted)
    if not here.settings.sites and url:
        return Site("-", url)
    with closing(here.open_source()) as source:
        listed = chain.from_iterable(page.sites for page in source.pages("", PAGE))
        return next((site for site in listed if wanted == site.id or url == site.url), None)


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
