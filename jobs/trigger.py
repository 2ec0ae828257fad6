"""One trigger: the address that is called, and what its answer means (CONTRACT section 5)."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from jobs import __version__
from jobs.engine import Result
from jobs.outcomes import Outcome
from jobs.plain_text import plain

USER_AGENT = f"all-sites-cron/{__version__}"
RETRY_DELAYS = (2.0, 8.0, 30.0)  # seconds before the first, second, and every later retry
MOST_RETRY_AFTER = 120
_PASSING_STATUSES = frozenset({429, 502, 503, 504})


def trigger_url(site_url: str) -> str:
    """The address to POST to. The value of doing_wp_cron is empty: any other makes wp-cron.php return at once.

    Source of the rule: WordPress wp-cron.php, which takes a value for the lock of the process that spawned it.
    """
    return f"{site_url}/wp-cron.php?doing_wp_cron"


class Verdict(NamedTuple):
    """What one answer means.

    `detail`: text for a person. `passing`: trying again may help. `wait`: seconds the server asked for, at most 120.
    `follow`: the site address to call instead, once (same host, from http to https).
    """

    outcome: Outcome
    detail: str = ""
    passing: bool = False
    wait: int | None = None
    follow: str | None = None


def judge(result: Result, site_url: str) -> Verdict:
    """The verdict on the answer to a trigger sent to `site_url`."""
    if result.error is not None:
        passing = result.error in ("dns", "connect") or (result.error == "tls" and result.passing)
        return Verdict(Outcome[result.error.upper()], plain(result.detail), passing)
    status = result.status
    if 200 <= status < 300:
        return Verdict(Outcome.DISPATCHED)
    if status < 400:
        return _redirect(status, result.redirect_url, site_url)
    wait = None if result.retry_after is None else min(result.retry_after, MOST_RETRY_AFTER)
    outcome = Outcome.HTTP_4XX if status < 500 else Outcome.HTTP_5XX
    return Verdict(outcome, f"answered {status}", status in _PASSING_STATUSES, wait)


def _redirect(status: int, target: str | None, site_url: str) -> Verdict:
    if not target:
        return Verdict(Outcome.REDIRECT, f"answered {status} and names no target")
    try:
        to, old = urlsplit(target), urlsplit(site_url)
        same_site = to.hostname == old.hostname and to.path == f"{old.path}/wp-cron.php"
        port = to.port
    except ValueError:
        return Verdict(Outcome.REDIRECT, f"answered {status} and names no valid target")
    user, query = re.sub(".*@", "***@", to.netloc), re.sub("=[^&]*", "=***", to.query)  # may hold a login, a token
    shown = f"answered {status} to {plain(to._replace(netloc=user, query=query, fragment='').geturl())}"
    if old.scheme == "http" and to.scheme == "https" and same_site and to.username is None:
        host = f"[{old.hostname}]" if old.hostname and ":" in old.hostname else old.hostname
        return Verdict(Outcome.REDIRECT, shown, follow=f"https://{host}{f':{port}' if port else ''}{old.path}")
    return Verdict(Outcome.REDIRECT, f"{shown}; the site list should have the address that answers")
