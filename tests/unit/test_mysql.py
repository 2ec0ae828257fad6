"""The mysql:// URL of a network's database: what it may say, and that its password is told to nobody."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from jobs.addresses import AddressGuard
from jobs.errors import SettingsError, SourceError
from jobs.mysql import Database
from jobs.settings import load, shown
from jobs.sources import open_source


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("mysql://u:p@db/wp", Database("u", "p", "db", 3306, "wp", 1, "wp_", None, None)),
        ("mysql://u@DB.example:3307/wp", Database("u", "", "db.example", 3307, "wp")),
        ("mysql://u:p@[::1]/wp", Database("u", "p", "::1", 3306, "wp")),
        ("mysql://u%40x:%2F%3F%23%40%3A%C3%A9@db/w%20p", Database("u@x", "/?#@:é", "db", 3306, "w p")),
        ("MySQL://u:p@db/wp?prefix=a_B9$_&network=12", Database("u", "p", "db", 3306, "wp", 12, "a_B9$_")),
        ("mysql://u:p@/wp?socket=/run/db.sock", Database("u", "p", "", 3306, "wp", socket="/run/db.sock")),
        ("mysql://u:p@db/wp?ssl=required", Database("u", "p", "db", 3306, "wp", ssl="required")),
        ("mysql://u:p@db/wp?ssl=verified", Database("u", "p", "db", 3306, "wp", ssl="verified")),
    ],
)
def test_a_url_names_the_database(url: str, database: Database) -> None:
    """What it does not name has a default: port 3306, prefix wp_, network 1."""
    assert Database.from_url(url) == database


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("mysql://hunter2@db", "lacks a part"),
        ("mysql://hunter2/wp", "lacks a part"),
        ("mysql://:hunter2@db/wp", "lacks a part"),
        ("mysql://me:hunter2@/wp", "lacks a part"),
        ("mysql://me:hunter2@db/wp/more", "one too many"),
        ("mysql://me:hunter2@db/wp#more", "one too many"),
        ("mysql://me:hunter2#1@db/wp", "is no mysql:// URL|lacks a part"),
        ("mysql://me:hunter2?a=b@db/wp", "is no mysql:// URL|lacks a part"),
        ("mysql://me:hunter2@db:port/wp", "is no mysql:// URL"),
        ("mysql://me:hunter2@[db/wp", "is no mysql:// URL"),
        ("mysql://me:hunter2@db/wp?prefix", "is no mysql:// URL"),
        ("postgres://me:hunter2@db/wp", "lacks a part"),
        ("mysql://me:hunter2@db/wp?timeout=hunter2", "wrong parameter timeout;"),
        ("mysql://me:hunter2@db/wp?prefix=", "wrong parameter prefix;"),
        ("mysql://me:hunter2@db/wp?prefix=wp_`--", "wrong parameter prefix;"),
        ("mysql://me:hunter2@db/wp?prefix=" + 41 * "a", "wrong parameter prefix;"),
        ("mysql://me:hunter2@db/wp?network=0&ssl=no", "wrong parameter network, ssl;"),
        ("mysql://me:hunter2@db/wp?socket=db.sock", "wrong parameter socket;"),
    ],
)
def test_a_wrong_url_is_refused_saying_what_is_allowed(url: str, wrong: str) -> None:
    """The error names the setting and the parameter, and repeats no value."""
    with pytest.raises(SettingsError, match=wrong) as caught:
        Database.from_url(url, "X")
    assert str(caught.value).startswith("X ")
    assert "allowed is mysql://user:password@host[:port]/database" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_ca_file_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"has ssl=/none\.pem, which is no file of certificates"):
        Database.from_url("mysql://me:hunter2@localhost/wp?ssl=/none.pem")


def test_no_part_of_the_program_shows_the_password() -> None:
    """Neither the value's repr, nor `config`, with or without a character that belongs encoded."""
    assert "hunter2" not in repr(Database.from_url("mysql://me:hunter2@db/wp"))
    for password in ("hunter2", "?hunter2", "hun\nhunter2"):
        rows = shown(
            load({"REDIS_URL": "redis://", "ALL_SITES_CRON_SITES": f"mysql://me:{password}@db/wp?socket=/hunter2"})
        )
        (sites,) = [value for variable, value, _ in rows if variable == "ALL_SITES_CRON_SITES"]
        assert "hunter2" not in sites
        assert "@db/wp" in sites


def test_the_url_may_come_from_a_file(tmp_path: Path) -> None:
    """As every secret may."""
    (tmp_path / "url").write_text("mysql://me:hunter2@db/wp\n")
    loaded = load({"REDIS_URL": "redis://", "ALL_SITES_CRON_SITES_FILE": str(tmp_path / "url")})
    assert (loaded.settings.sites, loaded.warnings) == ("mysql://me:hunter2@db/wp", ())


def test_without_the_extra_the_setting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the setting is read, at start, not when a run begins."""
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(SettingsError, match=r"pip install 'all-sites-cron\[mysql\]'"):
        open_source("mysql://me:hunter2@db/wp", feed_token=None, guard=AddressGuard())


def test_a_server_that_is_not_there_is_a_source_error() -> None:
    """It names the host, and neither user nor password; opening the source asks nothing yet."""
    url = "mysql://me:hunter2@127.0.0.1:1/wp"
    with closing(open_source(url, feed_token=None, guard=AddressGuard())) as source:
        with pytest.raises(SourceError, match=r"database: Can't connect .* on '127\.0\.0\.1'") as caught:
            next(source.pages("", 50))
        assert "hunter2" not in str(caught.value)
