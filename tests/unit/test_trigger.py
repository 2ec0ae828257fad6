"""What an answer to a trigger means: the rows of CONTRACT section 5, outcome by outcome."""

import re
from typing import Any

import pytest

from jobs.engine import Result
from jobs.outcomes import Outcome
from jobs.trigger import judge, trigger_url

SITE = "http://blog.example/sub"


def verdict(site: str = SITE, **fields: Any) -> Any:
    return judge(Result(None, **{"status": 0, **fields}), site)


def test_the_value_of_doing_wp_cron_is_empty() -> None:
    """wp-cron.php returns at once for a value that is not its lock's."""
    assert trigger_url(SITE) == "http://blog.example/sub/wp-cron.php?doing_wp_cron"


@pytest.mark.parametrize(
    ("status", "outcome", "passing"),
    [(status, Outcome.DISPATCHED, False) for status in (200, 201, 204, 299)]
    + [(status, Outcome.REDIRECT, False) for status in (300, 301, 302, 303, 304, 307, 308)]
    + [(status, Outcome.HTTP_4XX, False) for status in (400, 401, 403, 404, 410, 499)]
    + [(429, Outcome.HTTP_4XX, True)]
    + [(status, Outcome.HTTP_5XX, False) for status in (500, 501, 505, 520, 599)]
    + [(status, Outcome.HTTP_5XX, True) for status in (502, 503, 504)],
)
def test_a_status_has_one_outcome(status: int, outcome: Outcome, passing: bool) -> None:
    """2xx means taken; of the others only 429 and 502 to 504 may be better in a moment."""
    found = verdict(status=status)
    assert (found.outcome, found.passing, found.follow) == (outcome, passing, None)
    assert (found.detail == "") == (outcome is Outcome.DISPATCHED)
    assert outcome is Outcome.DISPATCHED or str(status) in found.detail


@pytest.mark.parametrize(
    ("error", "passing", "outcome", "retried"),
    [
        ("dns", False, Outcome.DNS, True),
        ("connect", False, Outcome.CONNECT, True),
        ("tls", True, Outcome.TLS, True),
        ("tls", False, Outcome.TLS, False),
        ("reset", False, Outcome.RESET, False),
        ("timeout", False, Outcome.TIMEOUT, False),
    ],
)
def test_an_error_has_one_outcome(error: str, passing: bool, outcome: Outcome, retried: bool) -> None:
    """What was not sent is tried again: a name, a connection, a TLS handshake that was reset; a bad certificate not."""
    found = verdict(error=error, passing=passing, detail="curl says")
    assert found == (outcome, "curl says", retried, None, None)


@pytest.mark.parametrize(("asked", "wait"), [(None, None), (0, 0), (7, 7), (120, 120), (121, 120), (86400, 120)])
def test_a_server_may_ask_for_a_wait_of_two_minutes(asked: int | None, wait: int | None) -> None:
    """Retry-After is taken, capped."""
    assert verdict(status=503, retry_after=asked).wait == wait
    assert verdict(status=429, retry_after=asked).wait == wait


@pytest.mark.parametrize(
    ("site", "target", "follow"),
    [
        (SITE, "https://blog.example/sub/wp-cron.php?doing_wp_cron", "https://blog.example/sub"),
        (SITE, "https://BLOG.example/sub/wp-cron.php", "https://blog.example/sub"),
        (SITE, "https://blog.example:8443/sub/wp-cron.php?doing_wp_cron", "https://blog.example:8443/sub"),
        ("http://blog.example:80", "https://blog.example/wp-cron.php?doing_wp_cron", "https://blog.example"),
        ("http://[2001:db8::1]:8080/a", "https://[2001:db8::1]/a/wp-cron.php", "https://[2001:db8::1]/a"),
    ],
)
def test_a_redirect_from_http_to_https_of_the_same_host_is_followed(site: str, target: str, follow: str) -> None:
    """To the same path; the query is put on it again."""
    found = verdict(site, status=301, redirect_url=target)
    assert found.follow == follow
    assert trigger_url(found.follow).endswith("/wp-cron.php?doing_wp_cron")


@pytest.mark.parametrize(
    ("site", "target"),
    [
        (SITE, "https://other.example/sub/wp-cron.php?doing_wp_cron"),
        (SITE, "https://blog.example.evil.example/sub/wp-cron.php"),
        (SITE, "https://www.blog.example/sub/wp-cron.php"),
        (SITE, "https://blog.example/wp-login.php"),
        (SITE, "https://blog.example/wp-cron.php"),
        (SITE, "https://blog.example/sub/wp-cron.php/"),
        (SITE, "http://blog.example/sub/wp-cron.php?doing_wp_cron"),
        (SITE, "http://blog.example:8080/sub/wp-cron.php"),
        (SITE, "https://user@blog.example/sub/wp-cron.php"),
        (SITE, "https://user:secret@blog.example/sub/wp-cron.php"),
        ("https://blog.example/sub", "https://blog.example/sub/wp-cron.php?again"),
        ("https://blog.example/sub", "http://blog.example/sub/wp-cron.php"),
        (SITE, "ftp://blog.example/sub/wp-cron.php"),
        (SITE, "https://blog.example:99999/sub/wp-cron.php"),
        (SITE, "https://[/sub/wp-cron.php"),
        (SITE, ""),
        (SITE, None),
    ],
)
def test_any_other_redirect_is_a_failure_that_names_its_target(site: str, target: str | None) -> None:
    """Not to another host, another path, back to http, with credentials, or nowhere."""
    found = verdict(site, status=302, redirect_url=target)
    assert (found.outcome, found.follow, found.passing) == (Outcome.REDIRECT, None, False)
    named = (re.sub("//.*@", "//***@", target or "names no target"), "names no valid target")
    assert any(text in found.detail for text in named)


def test_a_target_is_named_without_what_may_be_secret_in_it() -> None:
    """A login's redirect carries tokens; the names in its query stay, as they tell which login it is."""
    found = verdict(SITE, status=302, redirect_url="https://u:planted@a.example/in?next=/&token=planted&#id=planted")
    assert found.detail.startswith("answered 302 to https://***@a.example/in?next=***&token=***&; ")


def test_what_a_site_wrote_is_shown_on_one_short_line() -> None:
    """A redirect target or curl's words may hold anything."""
    target = "https://evil.example/\u202e\r\n::error::x" + "a" * 5000
    for found in (verdict(status=302, redirect_url=target), verdict(error="reset", detail=target)):
        assert len(found.detail) < 400
        assert found.detail.isprintable()
