"""Where a setting comes from: its names, files for secrets; and that no secret is shown."""

from pathlib import Path

import pytest

from jobs.settings import PREFIX, Settings, load, shown
from tests.unit.test_settings import REDIS, loaded, refused


def test_a_legacy_name_is_taken_with_one_warning() -> None:
    """DSS_CRON_<NAME>, as the plugin's first version had it."""
    found = loaded(DSS_CRON_RATE_LIMIT_SECONDS=120)
    assert found.settings.rate_limit_seconds == 120
    assert found.origins["rate_limit_seconds"] == "DSS_CRON_RATE_LIMIT_SECONDS"
    (warning,) = found.warnings
    assert "DSS_CRON_RATE_LIMIT_SECONDS is the legacy name" in warning
    assert "use ALL_SITES_CRON_RATE_LIMIT_SECONDS" in warning


def test_the_new_name_wins_over_the_legacy_one_with_one_warning() -> None:
    """So that nobody wonders why a change of the legacy one does nothing."""
    found = loaded(DSS_CRON_RATE_LIMIT_SECONDS=120, RATE_LIMIT_SECONDS=30)
    assert found.settings.rate_limit_seconds == 30
    assert found.origins["rate_limit_seconds"] == "ALL_SITES_CRON_RATE_LIMIT_SECONDS"
    (warning,) = found.warnings
    assert "DSS_CRON_RATE_LIMIT_SECONDS" in warning
    assert "ignored" in warning


@pytest.mark.parametrize("name", ["ALL_SITES_CRON_REDIS_MAX_RETRIES", "DSS_CRON_REDIS_MAX_RETRIES"])
def test_the_retries_have_the_plugins_name_too(name: str) -> None:
    """REDIS_MAX_RETRIES, with a warning; MAX_RETRIES wins."""
    found = loaded(**{name: 5})
    assert found.settings.max_retries == 5
    assert found.warnings == (f"{name} is the legacy name; use ALL_SITES_CRON_MAX_RETRIES.",)
    assert loaded(**{name: 5}, MAX_RETRIES=1).settings.max_retries == 1


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("BATCHSIZE", "ALL_SITES_CRON_BATCH_SIZE"),
        ("REQUEST_TIME_OUT", "ALL_SITES_CRON_REQUEST_TIMEOUT"),
        ("RATE_LIMIT", "ALL_SITES_CRON_RATE_LIMIT_SECONDS"),
        ("AUTH_TOKEN_FILES", "ALL_SITES_CRON_AUTH_TOKEN_FILE"),
        ("REDIS_URL", "REDIS_URL"),
        ("REDIS_URL_FILE", "REDIS_URL_FILE"),
    ],
)
def test_an_unknown_name_is_warned_about_with_the_nearest_right_one(wrong: str, right: str) -> None:
    """Only under this project's prefix, and it changes nothing."""
    found = load({"REDIS_URL": REDIS, f"ALL_SITES_CRON_{wrong}": "1", "OTHER_BATCHSIZE": "1"})
    assert found.warnings == (f"ALL_SITES_CRON_{wrong} is not a setting; did you mean {right}?",)
    assert found.settings == loaded().settings


def test_a_name_that_is_near_to_none_gets_no_suggestion() -> None:
    """A wrong hint costs more than none."""
    assert loaded(QQQQ=1).warnings == ("ALL_SITES_CRON_QQQQ is not a setting and is ignored.",)


# Secrets and tokens


@pytest.mark.parametrize("name", ["AUTH_TOKEN", "FEED_TOKEN", "REDIS_URL", "AUTH_TOKENS"])
def test_a_secret_may_come_from_a_file(name: str, tmp_path: Path) -> None:
    """Without the line end that editors leave; the variable itself wins."""
    variable = name if name == "REDIS_URL" else PREFIX + name
    value = {"REDIS_URL": "redis://file", "AUTH_TOKENS": "a:run:file"}.get(name, "file")
    path = tmp_path / "secret"
    path.write_text(f"{value}\r\n")
    environ = {"REDIS_URL": REDIS} if name != "REDIS_URL" else {}
    found = load(environ | {f"{variable}_FILE": str(path)})
    assert found.origins[name.lower()] == f"{variable}_FILE"
    assert found.warnings == ()
    held = getattr(found.settings, name.lower())
    secret = held[0].secret if name == "AUTH_TOKENS" else held
    assert secret.get_secret_value() == {"AUTH_TOKENS": "file"}.get(name, value)
    direct = load(environ | {f"{variable}_FILE": str(path), variable: value})
    assert direct.origins[name.lower()] == variable


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """With its path and the reason; no bytes of it."""
    missing = tmp_path / "missing"
    assert f"ALL_SITES_CRON_AUTH_TOKEN_FILE={missing}: the file cannot be read" in refused(AUTH_TOKEN_FILE=missing)
    missing.write_bytes(b"\xff\xfe")
    assert "cannot be read" in refused(AUTH_TOKEN_FILE=missing)


def test_only_secrets_come_from_files(tmp_path: Path) -> None:
    """Another name with _FILE is not a setting."""
    assert "is not a setting" in loaded(BATCH_SIZE_FILE=tmp_path).warnings[0]


def test_tokens_have_names_and_scopes() -> None:
    """AUTH_TOKEN is the first, named default, and may run; a token may hold colons."""
    tokens = loaded(AUTH_TOKEN="one", AUTH_TOKENS=" ci:run:two , grafana:read:a:b:c,").settings.tokens
    assert [(token.name, token.scope, token.secret.get_secret_value()) for token in tokens] == [
        ("default", "run", "one"),
        ("ci", "run", "two"),
        ("grafana", "read", "a:b:c"),
    ]


@pytest.mark.parametrize(
    "text", ["hunter2", "ci:hunter2", "ci:write:hunter2", ":run:hunter2", "ci:run:", "ci::hunter2"]
)
def test_a_malformed_token_list_is_refused_without_being_repeated(text: str) -> None:
    """The text says the form."""
    assert (
        refused(AUTH_TOKENS=text) == "ALL_SITES_CRON_AUTH_TOKENS=…: must be name:scope:token,… with scope run or read"
    )


@pytest.mark.parametrize(("text", "required"), [(None, True), ("auto", True), ("true", True), ("false", False)])
def test_authentication_is_required_unless_switched_off(text: str | None, required: bool) -> None:
    """Unset and auto mean yes."""
    environ = {} if text is None else {"REQUIRE_AUTH": text}
    assert loaded(**environ).settings.auth_required is required


def test_what_is_shown_has_no_secret_in_it() -> None:
    """Every setting with its value and origin, secrets and the credentials in an address masked."""
    found = loaded(
        AUTH_TOKEN="hunter2",
        AUTH_TOKENS="ci:run:hunter2",
        FEED_TOKEN="hunter2",
        SITES="https://me:hunter2@feed.example/sites?key=hunter2",
        BATCH_SIZE=7,
        ALLOWED_NETWORKS="10.0.0.0/8 fd00::/8",
    )
    rows = {variable: (value, origin) for variable, value, origin in shown(found)}
    assert "hunter2" not in str(rows)
    assert "hunter2" not in repr(found.settings.model_copy(update={"sites": None}))
    assert len(rows) == len(Settings.model_fields)
    assert rows["REDIS_URL"] == ("****", "REDIS_URL")
    assert rows["ALL_SITES_CRON_BATCH_SIZE"] == ("7", "ALL_SITES_CRON_BATCH_SIZE")
    assert rows["ALL_SITES_CRON_CONCURRENCY"] == ("50", "default")
    assert rows["ALL_SITES_CRON_ALLOWED_NETWORKS"][0] == "10.0.0.0/8,fd00::/8"
    assert rows["ALL_SITES_CRON_USE_REDIS_QUEUE"][0] == "true"
    assert rows["ALL_SITES_CRON_TRUSTED_PROXIES"][0] == "-"
    assert rows["ALL_SITES_CRON_SITES"][0] == "https://****@feed.example/sites?****"
