"""What a feed of releases tells, and how long that is known (CONTRACT section 7)."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import fakeredis
import pytest

from jobs import __version__, keys, updates
from jobs.errors import OutboundError, SettingsError
from jobs.settings import load
from jobs.updates import Release
from jobs.world import World, build
from tests.unit.web_server import Handler, Serve, Server

MAJOR = int(__version__.partition(".")[0])
NEWER, OLDER = f"{MAJOR}.99.0", f"{MAJOR - 1}.9.9"
FEED = "ALL_SITES_CRON_UPDATE_FEED"


def release(tag: str, **more: object) -> dict[str, object]:
    """As GitHub's API gives it, less what is not read."""
    page = f"https://github.example/releases/tag/{tag}"
    return {"tag_name": tag, "html_url": page, "draft": False, "prerelease": False, "assets": [], **more}


@pytest.fixture
def redis() -> Iterator[fakeredis.FakeRedis]:
    with closing(fakeredis.FakeRedis()) as made:
        yield made


def world(feed: str, redis: fakeredis.FakeRedis, **environ: str) -> World:
    allowed = {"ALL_SITES_CRON_ALLOWED_NETWORKS": "127.0.0.0/8"}
    return replace(build({"REDIS_URL": "redis://", FEED: feed, **allowed, **environ}), redis=redis)


def test_a_newer_release_is_found_with_its_wheel(serve: Serve, redis: fakeredis.FakeRedis) -> None:
    """Among all assets by the name a wheel of that version has."""
    wheel = f"all_sites_cron-{NEWER}-py3-none-any.whl"
    assets = [
        {"name": name, "browser_download_url": f"https://github.example/{name}", "digest": f"sha256:{name}"}
        for name in ("all_sites_cron.tar.gz", wheel)
    ]
    found = updates.ask(world(serve(release(f"v{NEWER}", assets=assets)).url, redis))
    page = f"https://github.example/releases/tag/v{NEWER}"
    assert found == Release(NEWER, page, f"https://github.example/{wheel}", f"sha256:{wheel}")
    assert found.newer
    assert updates.told(found) == f"Update: {NEWER}, {page}"


@pytest.mark.parametrize(
    ("answer", "version", "newer"),
    [
        ([release(f"v{NEWER}")], NEWER, True),
        ([release("v1.9.0"), release(f"v{NEWER}"), release("v1.10.0")], NEWER, True),
        ([release("v1.9.0"), release("1.10.0")], "1.10.0", False),
        (release(f"v{__version__}"), __version__, False),
        ([release(f"v{OLDER}")], OLDER, False),
        ([release(f"v{NEWER}", prerelease=True), release(f"v{__version__}")], __version__, False),
        ([release(f"v{NEWER}", draft=True), release(f"v{__version__}")], __version__, False),
        ([release(f"v{NEWER}rc1"), release(f"v{__version__}")], __version__, False),
        ([release("nightly", prerelease=True)], "0", False),
        ([], "0", False),
    ],
    ids=["newer", "newest of all", "by number", "same", "older", "pre-release", "draft", "rc", "nightly", "empty"],
)
def test_the_newest_stable_release_counts(
    serve: Serve, redis: fakeredis.FakeRedis, answer: object, version: str, newer: bool
) -> None:
    """Whether the feed is the list or the one object that GitHub calls latest."""
    found = updates.ask(world(serve(answer).url, redis))
    assert (found.version, found.newer) == (version, newer)
    if not newer:
        assert updates.told(found) == f"Update: none is newer than {__version__}"


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "{",
        "7",
        "null",
        '["v9"]',
        "[" * 100_000,
        b"\xff",
        {"tag_name": "v9"},
        release("nine"),
        release(None),  # type: ignore[arg-type]
        release("v9", html_url="javascript:alert(1)"),
        release("v9", html_url=None),
        release("v9", assets=[{}]),
        release("v9", assets=None),
    ],
)
def test_a_malformed_feed_is_an_error(serve: Serve, redis: fakeredis.FakeRedis, body: Any) -> None:
    """One that says what was expected."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    with pytest.raises(OutboundError, match="does not answer as GitHub lists releases"):
        updates.ask(world(serve(lambda handler: handler.reply(text)).url, redis))


@pytest.mark.parametrize(("status", "error"), [(404, "answer 404"), (302, "redirects more than 5 times")])
def test_a_feed_that_does_not_answer_is_an_error(
    serve: Serve, redis: fakeredis.FakeRedis, status: int, error: str
) -> None:
    with pytest.raises(OutboundError, match=f"update feed: {error}"):
        updates.ask(world(serve(lambda handler: handler.reply("[]", status=status, Location="/")).url, redis))


def test_ssl_verify_does_not_switch_the_feeds_verification_off(
    redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it names may be installed."""
    asked: list[bool | str] = []

    def tls_context(verify: bool | str) -> None:
        asked.append(verify)
        raise SettingsError("nothing is asked")

    monkeypatch.setattr(updates, "tls_context", tls_context)
    with pytest.raises(SettingsError):
        updates.ask(world("https://feed.example", redis, ALL_SITES_CRON_SSL_VERIFY="false"))
    assert asked == [True]


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://api.github.com/repos/o/n/releases", True),
        ("https://releases.example:8443", True),
        ("http://127.0.0.1:8000/releases", True),
        ("http://[::1]:8000/", True),
        ("http://localhost", True),
        ("http://releases.example/", False),
        ("http://127.0.0.1.evil.example/", False),
        ("https://user:hunter2@releases.example/", False),
        ("ftp://releases.example/", False),
        ("https:///releases", False),
    ],
)
def test_a_feed_over_the_network_is_https(url: str, good: bool) -> None:
    """A digest that anybody on the way could change would protect nothing."""
    environ = {"REDIS_URL": "redis://", FEED: url}
    if good:
        assert load(environ).settings.update_feed == url
    else:
        with pytest.raises(SettingsError, match=rf"{FEED}=.*must be https://"):
            load(environ)


def test_an_answer_is_known_for_twelve_hours_to_every_process(serve: Serve, redis: fakeredis.FakeRedis) -> None:
    """Meanwhile nobody asks the feed."""
    server: Server = serve(release(f"v{NEWER}"))
    one, other = world(server.url, redis), world(server.url, redis)
    expected = Release(NEWER, f"https://github.example/releases/tag/v{NEWER}")
    assert updates.cached(one) == "it was not asked yet"
    assert [updates.refresh(each) for each in (one, other, one)] == [expected] * 3
    assert updates.cached(other) == expected
    assert len(server.asked) == 1
    assert 12 * 3600 - 60 < redis.ttl(keys.UPDATE) <= 12 * 3600
    redis.delete(keys.UPDATE)
    updates.refresh(other)
    assert len(server.asked) == 2


def test_an_error_is_known_for_an_hour(serve: Serve, redis: fakeredis.FakeRedis) -> None:
    """A feed that is down is not asked by each process in turn."""
    server: Server = serve(lambda handler: handler.reply("", status=503))
    here = world(server.url, redis)
    assert updates.refresh(here) == updates.refresh(here) == "update feed: answer 503"
    assert updates.told(updates.cached(here)) == "Update: not known; update feed: answer 503"
    assert len(server.asked) == 1
    assert 3600 - 60 < redis.ttl(keys.UPDATE) <= 3600


def test_while_one_process_asks_no_other_does(serve: Serve, redis: fakeredis.FakeRedis) -> None:
    """It says so instead."""
    seen: list[Release | str] = []

    def answer(handler: Handler) -> None:
        seen.append(updates.refresh(world(server.url, redis)))
        handler.reply(json.dumps([]))

    server: Server = serve(answer)
    assert updates.refresh(world(server.url, redis)) == Release()
    assert seen == ["it is being asked"]
