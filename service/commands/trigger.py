"""`trigger SITE`: one site, explained to somebody at 3 a.m."""

import time
from contextlib import closing
from urllib.parse import urlsplit

from rich.console import Console

from jobs.engine import Engine, Result
from jobs.errors import SettingsError, SourceError
from jobs.outcomes import Outcome
from jobs.resolver import Address, Answer, Blocked, Resolver
from jobs.sites import BadUrl, Site, normalise_url
from jobs.trigger import Verdict, judge, trigger_url
from jobs.world import World
from service.commands.environment import OK, SOME_FAILED, UNREACHABLE, USAGE, complain, world
from service.commands.sites import every

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


def trigger(wanted: str) -> int:
    """Trigger one site and explain; the exit code."""
    here = world()
    try:
        site = _find(here, wanted)
    except SettingsError as error:
        complain(str(error))
        return USAGE
    except SourceError as error:
        complain(str(error))
        return UNREACHABLE
    if site is None:
        complain(
            f"{wanted!r} is no public site of this network (give its id or its siteurl; see `all-sites-cron sites`)."
        )
        return USAGE
    return _explain(here, site, Console(soft_wrap=True, highlight=False, emoji=False))


def _find(here: World, wanted: str) -> Site | None:
    try:
        url = normalise_url(wanted)
    except BadUrl:
        url = ""
    if not here.settings.sites and url:
        return Site("-", url)
    with closing(here.open_source()) as source:
        return next((site for site in every(source) if wanted == site.id or url == site.url), None)


def _explain(here: World, site: Site, out: Console) -> int:
    def say(label: str, text: str) -> None:
        out.print(f"{label:<9} {text}", markup=False)

    def call(url: str) -> Verdict:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        say("call", f"POST {trigger_url(url)}")
        answer = _resolve(resolver, parts.hostname or "", port)
        if isinstance(answer, Address):
            checked = "verified" if here.settings.ssl_verify else "not verified (ALL_SITES_CRON_SSL_VERIFY)"
            say("address", f"{answer.ip} port {port}, " + (f"TLS {checked}" if parts.scheme == "https" else "no TLS"))
            engine.start(None, trigger_url(url), answer.ip)
            result = _wait(engine)
            say("answer", f"{result.status or 'none'} after {result.seconds * 1000:.0f} ms")
            return judge(result, url)
        if isinstance(answer, Blocked):
            allow = f"ALL_SITES_CRON_ALLOWED_NETWORKS={answer.allow} would allow it"
            return Verdict(Outcome.BLOCKED, f"{answer.ip} is not public; {allow}")
        return Verdict(Outcome.DNS, answer.reason)

    say("site", f"{site.id}  {site.url}")
    engine = here.new_engine()
    with closing(engine), closing(Resolver(here.guard, wake=engine.wake)) as resolver:
        verdict = call(site.url)
        if verdict.follow:
            say("redirect", verdict.detail)
            verdict = call(verdict.follow)
    outcome, detail = verdict.outcome, verdict.detail
    say("outcome", ": ".join(filter(None, (outcome.kind, outcome.reason))) + (f" ({detail})" if detail else ""))
    say("meaning", ADVICE[outcome])
    return OK if outcome in (Outcome.DISPATCHED, Outcome.TIMEOUT) else SOME_FAILED


def _resolve(resolver: Resolver, host: str, port: int) -> Answer:
    while (answer := resolver.ask(host, port)) is None:
        time.sleep(0.01)
        resolver.collect()
    return answer


def _wait(engine: Engine) -> Result:
    while not (results := engine.poll(1.0)):
        continue
    return results[0]
