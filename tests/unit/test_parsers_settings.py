"""Whatever a setting or an address of a service is set to: taken, or refused by name and without what is secret."""

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import fakeredis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs import redis_connection
from jobs.addresses import parse_networks
from jobs.errors import SettingsError, SourceError
from jobs.lifecycle import deactivate
from jobs.mysql import Database, connect
from jobs.settings import BOOLEAN_WORDS, PREFIX, Settings, boolean, load, shown
from tests.unit.odd_texts import from_bytes, held, odd, text

REDIS = {"REDIS_URL": "redis://localhost"}
SECRET = "hunter2"
numbers = st.integers().map(str) | st.floats().map(str) | st.text("0123456789.eE_-+ ٣", max_size=20)
words = st.sampled_from(["auto", "info", "1", "YES", "No", "off", "maybe", "a:run:b", "a:read:b,", "10.0.0.0/8"])
addresses = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["redis://", "rediss://", "unix://", "https://", "http://", "mysql://", ""]),
    st.sampled_from(["h", "u:p@h", "[::1]", "[", "h:1", "h:99999", "localhost", "127.0.0.1", ""]) | from_bytes,
    st.sampled_from(["", "/", "/0", "/x"]),
    st.sampled_from(
        ["", "?", "?db=x", "?timeout=1", "?foo=1", "?protocol=9", "?ssl_cert_reqs=x", "?max_connections=0"]
    ),
)
fields = st.sampled_from(["*", "*/5", "1-3", "0", "L", "31", "mon#1", "h(1-2)", "R", "*/0", "60"]) | st.text(
    "0123*/-,#LHR?"
)
schedules = st.lists(fields, min_size=4, max_size=6).map(" ".join)
texts = schedules | numbers | words | addresses | from_bytes | from_bytes.map(lambda text: 300 * text)


def refusal(error: Exception, starts: str | tuple[str, ...]) -> None:
    assert str(error).startswith(starts)
    assert SECRET not in str(error)


def taken(environ: Mapping[str, str], variable: str) -> Settings | None:
    """The settings, which can be shown, too; None if they are refused, naming the variable."""
    try:
        loaded = load(environ)
    except SettingsError as error:
        refusal(error, variable)
        return None
    assert all(isinstance(text, str) for line in shown(loaded) for text in line)
    return loaded.settings


@held
@given(name=st.sampled_from(sorted(Settings.model_fields)), text=texts.filter(bool))
@example(name="ssl_verify", text=f"-----BEGIN CERTIFICATE-----{'A' * 5000}")
@example(name="redis_url", text="redis://h?timeout=x")
@example(name="run_retention", text="9" * 30)
def test_a_setting_is_taken_or_refused_by_name(name: str, text: str) -> None:
    """Whatever bytes the environment holds; a number that is taken is one that Redis and Lua keep exactly."""
    variable = "REDIS_URL" if name == "redis_url" else PREFIX + name.upper()
    settings = taken(REDIS | {variable: text}, variable)
    value = getattr(settings, name, None)
    assert not isinstance(value, int | float) or abs(value) < 2**53


@held
@given(text=addresses)
def test_a_redis_url_that_is_taken_makes_connections(text: str) -> None:
    """What is wrong with its parameters is told at the start, not by the first call."""
    if settings := taken({"REDIS_URL": text or "x"}, "REDIS_URL"):
        with closing(redis_connection.connect(settings)) as redis:
            redis.connection_pool.make_connection()


@held
@given(text=st.sampled_from(BOOLEAN_WORDS.replace(" or", ",").split(", ")) | words | odd, upper=st.booleans())
def test_a_boolean_is_one_of_eight_words(text: str, upper: bool) -> None:
    """In any case, and nothing else."""
    text = text.upper() if upper else text
    true, false = BOOLEAN_WORDS.lower().split(" or ")
    if text.lower() in (*true.split(", "), *false.split(", ")):
        assert boolean(text) is (text.lower() in true.split(", "))
    else:
        with pytest.raises(ValueError, match="must be 1, true"):
            boolean(text)


names = st.text("abz-_.ß ", min_size=1).map(str.strip).filter(bool)
secrets = text(":@/%", st.characters(codec="utf-8", exclude_characters=",\0")).map(str.strip).filter(bool)


@held
@given(
    tokens=st.lists(st.tuples(names, st.sampled_from(["run", "read"]), secrets), max_size=4),
    gap=st.sampled_from(["", " "]),
)
def test_tokens_come_back_as_they_were_written(tokens: list[tuple[str, str, str]], gap: str) -> None:
    """A secret may hold colons; blanks and commas too many do not count."""
    text = f"{gap},{gap}".join(":".join(token) for token in tokens) + ","
    got = load(REDIS | {"ALL_SITES_CRON_AUTH_TOKENS": text}).settings.auth_tokens
    assert [(name, scope, secret.get_secret_value()) for name, scope, secret in got] == tokens


@held
@given(text=from_bytes.map(lambda text: f"a:run:{SECRET},{text}"))
def test_tokens_that_are_refused_are_not_repeated(text: str) -> None:
    """Not even the ones that were in order."""
    try:
        load(REDIS | {"ALL_SITES_CRON_AUTH_TOKENS": text})
    except SettingsError as error:
        refusal(error, "ALL_SITES_CRON_AUTH_TOKENS=…: must be name:scope:token")


@held
@given(
    parts=st.tuples(
        secrets, secrets, st.sampled_from(["db", "db.example", "::1", "10.0.0.3"]), st.text("ab ü%/?#"[:5], min_size=1)
    ),
    port=st.none() | st.integers(1, 65535),
    parameters=st.fixed_dictionaries(
        {}, optional={"prefix": st.just("a_B9$_"), "network": st.integers(1, 10**17), "ssl": st.just("required")}
    ),
)
def test_a_mysql_url_comes_back_as_it_was_written(
    parts: tuple[str, ...], port: int | None, parameters: dict[str, Any]
) -> None:
    """Whatever is in user, password and name of the database, as %XX."""
    user, password, host, name = parts
    where = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    query = "&".join(f"{key}={quote(str(value))}" for key, value in parameters.items())
    url = f"mysql://{quote(user, '')}:{quote(password, '')}@{where}/{quote(name, '')}?{query}".rstrip("?")
    assert Database.from_url(url) == Database(user, password, host, port or 3306, name, **parameters)


@held
@given(
    user=st.just("u") | from_bytes,
    host=st.sampled_from(["127.0.0.1:1", "a..b", "a" * 64, "[::1", ""])
    | from_bytes.map(lambda text: f"127.0.0.1{text}"),
    rest=st.sampled_from(["/d", "", "/", "/d?ssl=/%00", "/d?ssl=/no", "/d?network=٣", "/d?a=b", "/d#a"]) | from_bytes,
)
@example(user="u", host="a..b", rest="/d")
@example(user="u", host="127.0.0.1:1", rest="/d?ssl=/%00")
def test_a_mysql_url_is_refused_without_its_password(user: str, host: str, rest: str) -> None:
    """Or there is nothing to connect to; an error of either kind has nothing secret in it."""
    try:
        Database.from_url(f"mysql://{user}:{SECRET}@{host}{rest}", "X")
    except SettingsError as error:
        refusal(error, ("X ", "a mysql:// URL has ssl="))


@pytest.mark.parametrize("host", ["127.0.0.1:1", "a..b", "a" * 64])
def test_a_database_that_cannot_be_reached_is_a_source_error(host: str) -> None:
    """Also where its name is none, which is no error of a socket."""
    with pytest.raises(SourceError, match=r"^database: "):
        connect(Database.from_url(f"mysql://u:{SECRET}@{host}/d"))


@held
@given(
    text=st.lists(odd | st.ip_addresses().map(str) | st.sampled_from(["10.0.0.0/8", "fd00::/8", "10.0.0.1/8"])).map(
        ",".join
    )
)
def test_a_list_of_networks_is_read_or_its_bad_entry_named(text: str) -> None:
    """Each entry is one network."""
    listed = text.replace(",", " ").split()
    try:
        networks = parse_networks(text)
    except ValueError as error:
        refusal(error, tuple(map(repr, listed)))
    else:
        assert len(networks) == len(listed)


@held
@given(
    text=odd
    | st.from_regex(r"[0-9]{1,20}[dhms]", fullmatch=True)
    | st.datetimes().map(str)
    | st.datetimes(timezones=st.timezones()).map(str)
)
def test_a_moment_to_deactivate_until_is_to_come_or_refused(text: str) -> None:
    """A duration or a date, of any zone."""
    with closing(fakeredis.FakeRedis()) as redis:
        try:
            moment = deactivate(redis, text)
        except SettingsError as error:
            refusal(error, "--until=")
        else:
            assert moment is not None
            assert moment > datetime.now(UTC)
