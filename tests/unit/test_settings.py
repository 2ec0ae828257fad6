"""The settings: what is taken, what is refused and in which words, and where a value came from."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.errors import SettingsError
from jobs.settings import PREFIX, Loaded, load

REDIS = "redis://user:hunter2@redis.example:6379/0"


def loaded(**environ: object) -> Loaded:
    """The settings of an environment; names without prefix get it."""
    whole = ("DSS_CRON_", "ALL_SITES_CRON_", "REDIS_URL", "DYNO")
    return load(
        {"REDIS_URL": REDIS}
        | {name if name.startswith(whole) else PREFIX + name: str(value) for name, value in environ.items()}
    )


def refused(**environ: object) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(**environ)
    return str(caught.value)


# What is allowed


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("RATE_LIMIT_SECONDS", None, 604800),
        ("NUMBER_OF_SITES", 0, None),
        ("BATCH_SIZE", 1, 1000),
        ("CONCURRENCY", 1, 1000),
        ("ORIGIN_CONCURRENCY", 1, 1000),
        ("MAX_RETRIES", 0, 10),
        ("REDIS_MAX_CONNECTIONS", 2, 1000),
        ("LOCK_TIMEOUT", 2, 300),
        ("REQUEST_TIMEOUT", None, 300),
        ("RUN_RETENTION", 3600, None),
    ],
)
def test_a_number_has_bounds_and_a_refusal_names_them(name: str, lowest: int | None, highest: int | None) -> None:
    """Both bounds are allowed; beyond them the text has the variable, the value and what is allowed."""
    for bound, beyond in ((lowest, -1), (highest, 1)):
        if bound is None:
            continue
        assert getattr(loaded(**{name: bound}).settings, name.lower()) == bound
        text = refused(**{name: bound + beyond})
        assert text.startswith(f"ALL_SITES_CRON_{name}='{bound + beyond}': ")
        assert str(bound) in text.partition(": ")[2]
    assert "number" in refused(**{name: "many"}) or "integer" in refused(**{name: "many"})
    assert f"ALL_SITES_CRON_{name}='nan'" in refused(**{name: "nan"})


def test_defaults_are_those_of_the_contract() -> None:
    """Section 6."""
    expected: dict[str, Any] = {
        "rate_limit_seconds": 60,
        "number_of_sites": 0,
        "batch_size": 50,
        "request_timeout": 10,
        "concurrency": 50,
        "origin_concurrency": 8,
        "max_retries": 3,
        "use_redis_queue": True,
        "redis_queue_key": "all-sites-cron",
        "redis_tls_verify": True,
        "redis_max_connections": 10,
        "lock_timeout": 15,
        "sync_deadline": None,
        "require_auth": None,
        "ssl_verify": True,
        "allowed_networks": (),
        "trusted_proxies": (),
        "schedule": None,
        "timezone": "UTC",
        "run_retention": 604800,
        "log_level": "info",
    }
    found = loaded()
    assert {name: getattr(found.settings, name) for name in expected} == expected
    assert (found.warnings, found.settings.auth_required, found.settings.tokens) == ((), True, ())


@pytest.mark.parametrize("cooldown", [0, -1, -10_000])
def test_a_cooldown_may_be_zero_or_less(cooldown: int) -> None:
    """Which switches it off."""
    assert loaded(RATE_LIMIT_SECONDS=cooldown).settings.rate_limit_seconds == cooldown


@pytest.mark.parametrize("name", ["USE_REDIS_QUEUE", "REQUIRE_AUTH", "SSL_VERIFY", "REDIS_TLS_VERIFY"])
def test_booleans_are_words(name: str) -> None:
    """In any case; anything else is refused with the words that are taken."""
    for text, value in [("1", True), ("TRUE", True), ("Yes", True), ("on", True)]:
        assert getattr(loaded(**{name: text}).settings, name.lower()) is value
    for text in ("0", "false", "NO", "Off"):
        assert getattr(loaded(**{name: text}).settings, name.lower()) is False
    assert "1, true, yes, on or 0, false, no, off" in refused(**{name: "maybe"})
    assert f"ALL_SITES_CRON_{name}='maybe'" in refused(**{name: "maybe"})


@pytest.mark.parametrize("name", ["SSL_VERIFY", "REDIS_TLS_VERIFY"])
def test_verification_takes_the_path_of_a_ca_bundle(name: str, tmp_path: Path) -> None:
    """Which must exist at the start, not at the first request."""
    bundle = tmp_path / "ca.pem"
    assert "path of a CA bundle that exists" in refused(**{name: bundle})
    bundle.touch()
    assert getattr(loaded(**{name: bundle}).settings, name.lower()) == str(bundle)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("REDIS_QUEUE_KEY", "a b", "match pattern"),
        ("REDIS_QUEUE_KEY", "a" * 101, "match pattern"),
        ("ALLOWED_NETWORKS", "10.0.0.0/8,nonsense", "'nonsense' is not a network such as 10.0.0.0/8"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "is not a network"),
        ("SYNC_DEADLINE", "soon", "number"),
        ("SYNC_DEADLINE", "0", "greater than 0"),
        ("BATCH_SIZE", "2.5", "integer"),
    ],
)
def test_a_refusal_says_what_is_allowed(name: str, value: str, allowed: str) -> None:
    """With the variable and its value."""
    text = refused(**{name: value})
    assert text.startswith(f"ALL_SITES_CRON_{name}={value!r}: ")
    assert allowed in text


def test_all_mistakes_are_named_at_once() -> None:
    """A line each, under the variable that was really set."""
    text = refused(BATCH_SIZE=0, DSS_CRON_NUMBER_OF_SITES="x", REDIS_MAX_RETRIES=99)
    names = [line.partition("=")[0] for line in text.splitlines()]
    assert sorted(names) == [
        "ALL_SITES_CRON_BATCH_SIZE",
        "ALL_SITES_CRON_REDIS_MAX_RETRIES",
        "DSS_CRON_NUMBER_OF_SITES",
    ]


def test_an_empty_variable_counts_as_unset() -> None:
    """As shells and Compose files leave them."""
    assert loaded(BATCH_SIZE="", AUTH_TOKEN="").settings == loaded().settings


def test_settings_do_not_change() -> None:
    """They are read once."""
    with pytest.raises(ValidationError):
        loaded().settings.batch_size = 3


# Redis


def test_a_missing_redis_url_names_the_command_that_brings_one() -> None:
    """Redis is always needed; nothing else is complained about before it."""
    with pytest.raises(SettingsError, match=r"REDIS_URL is not set.*`all-sites-cron up`"):
        load({"ALL_SITES_CRON_BATCH_SIZE": "50"})


@pytest.mark.parametrize("url", ["redis://a", "rediss://a:1/0", "unix:///run/redis.sock"])
def test_three_kinds_of_redis_url_are_taken(url: str) -> None:
    """As redis-py reads them."""
    assert loaded(REDIS_URL=url).settings.redis_url.get_secret_value() == url


@pytest.mark.parametrize("url", ["http://me:hunter2@a", "me:hunter2@localhost:6379"])
def test_another_redis_url_is_refused_without_being_repeated(url: str) -> None:
    """It may hold a password."""
    text = refused(REDIS_URL=url)
    assert text == "REDIS_URL=…: must start with redis://, rediss:// or unix://"


@pytest.mark.parametrize("url", ["redis://:hunter2/x@a", "redis://:hunter2#x@a:1/0", "redis://a:1/0?db=hunter2"])
def test_a_redis_url_that_is_none_is_refused_without_a_part_of_the_password(url: str) -> None:
    """urllib's and redis-py's own errors would quote it."""
    allowed = "a URL with no parameters but redis-py's; in a password / is written %2F, # %23 and % %25"
    assert refused(REDIS_URL=url) == f"REDIS_URL=…: must be {allowed}"


# Values that are not taken as they stand


@pytest.mark.parametrize("text", ["0.01", "0", "-3", "0.999"])
def test_a_request_timeout_under_a_second_is_raised_with_one_warning(text: str) -> None:
    """The plugin's 0.01 s would call every site a timeout."""
    found = loaded(REQUEST_TIMEOUT=text)
    assert found.settings.request_timeout == 1
    assert len(found.warnings) == 1
    assert f"REQUEST_TIMEOUT={text} is raised to 1" in found.warnings[0]


@pytest.mark.parametrize(
    ("environ", "deadline"),
    [
        ({}, None),
        ({"DYNO": "web.1"}, 25),
        ({"SYNC_DEADLINE": "auto"}, None),
        ({"SYNC_DEADLINE": "AUTO", "DYNO": "web.1"}, 25),
        ({"SYNC_DEADLINE": "7.5", "DYNO": "web.1"}, 7.5),
        ({"DSS_CRON_SYNC_DEADLINE": "8"}, 8),
    ],
)
def test_the_sync_deadline_suits_heroku(environ: dict[str, str], deadline: float | None) -> None:
    """Its router gives up after 30 s; elsewhere there is none."""
    assert loaded(**environ).settings.sync_deadline == deadline
