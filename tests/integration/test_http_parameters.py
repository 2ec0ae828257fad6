"""What a caller may ask for, in the query and in the body (CONTRACT section 1)."""

import json
from typing import Any

import httpx
import pytest

from tests.integration.stack import API, Stack
from wordpress.demo_network import DemoNetwork

RUN = f"{API}/run"
ALLOWED = "must be 1, true, yes, on or 0, false, no, off"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


def cased(*words: str) -> list[str]:
    """Each word in three cases."""
    return sorted({spelled for word in words for spelled in (word, word.upper(), word.title())})


@pytest.mark.parametrize("text", cased("1", "true", "yes", "on"))
def test_defer_is_true(web: Stack, sites: DemoNetwork, text: str) -> None:
    """All words for true, in any case, defer the run."""
    assert web.trigger(defer=text).json()["status"] == "queued"


@pytest.mark.parametrize("query", [*(f"defer={text}" for text in cased("0", "false", "no", "off", "")), "defer", ""])
def test_defer_is_false(web: Stack, sites: DemoNetwork, query: str) -> None:
    """All words for false, nothing behind the name and no name at all run it now."""
    assert web.client.get(f"{RUN}?{query}").json()["endpoint"] == "rest"


@pytest.mark.parametrize("text", ["maybe", "2", "-1", " 1", "yes please", "1\n", "ja", "%FF", "null", "\u0661"])
@pytest.mark.parametrize("name", ["defer", "ga"])
def test_any_other_word_is_refused(web: Stack, sites: DemoNetwork, name: str, text: str) -> None:
    """It is 400 in WordPress's shape, names the parameter and what is allowed, and starts nothing."""
    answer = web.client.post(RUN, params={name: text})
    assert answer.status_code == 400
    assert answer.json() == {
        "code": "rest_invalid_param",
        "message": f"Invalid parameter(s): {name}",
        "data": {"status": 400, "params": {name: f"{name} {ALLOWED}."}},
    }
    assert web.redis.dbsize() == 0
    assert sites.stats()["calls"] == 0


def test_a_refused_parameter_in_actions_text(web: Stack) -> None:
    """With ga=1 the 400 is one error line that names the parameter."""
    answer = web.trigger(defer="maybe", ga=1)
    assert (answer.status_code, answer.text) == (400, f"::error::defer {ALLOWED}.\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("query", "deferred"), [("defer=0&defer=1", True), ("defer=1&defer=0", False), ("defer=%31", True)]
)
def test_the_last_of_several_counts(web: Stack, sites: DemoNetwork, query: str, deferred: bool) -> None:
    """As in PHP, the last of several values of one name counts; percent signs are decoded."""
    assert (web.client.get(f"{RUN}?{query}").status_code == 202) is deferred


@pytest.mark.parametrize("query", ["cache_bust=17&utm=x", "deferred=maybe&GA=maybe", "_wpnonce=%00", "&&=&%"])
def test_unknown_parameters_are_ignored(web: Stack, sites: DemoNetwork, query: str) -> None:
    """Neither their names nor their values matter."""
    assert web.client.post(f"{RUN}?{query}").json()["count"] == 6


@pytest.mark.parametrize(
    ("content", "headers", "status", "text"),
    [
        ("defer=1", FORM, 202, False),
        ("defer=1&ga=on", FORM, 202, True),
        ("defer=1", {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"}, 202, False),
        ("defer=maybe", FORM, 400, False),
        ('{"defer": true}', JSON, 202, False),
        ('{"defer": 1, "ga": "YES"}', JSON, 202, True),
        ('{"defer": false, "ga": null}', JSON, 200, False),
        ('{"defer": "maybe"}', JSON, 400, False),
        ('{"defer": [1]}', JSON, 400, False),
        ("[]", JSON, 200, False),
        ("  ", JSON, 200, False),
        ("defer=1", {"Content-Type": "text/plain"}, 200, False),
        ("defer=1", {}, 200, False),
    ],
)
def test_a_post_takes_parameters_from_its_body(
    web: Stack, sites: DemoNetwork, content: str, headers: dict[str, str], status: int, text: bool
) -> None:
    """A form and a JSON object are read as WordPress does; bodies of other kinds are not."""
    answer = web.client.post(RUN, content=content, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/plain") is text


def test_the_body_wins_over_the_query(web: Stack, sites: DemoNetwork) -> None:
    """As in WordPress, a parameter sent twice has the body's value."""
    assert web.client.post(f"{RUN}?defer=0", content="defer=1", headers=FORM).status_code == 202


def test_the_body_of_a_get_is_not_read(web: Stack, sites: DemoNetwork) -> None:
    """A GET has its parameters in the query alone."""
    assert web.client.request("GET", RUN, content="defer=1", headers=FORM).status_code == 200


@pytest.mark.parametrize("content", [b"{", b"{'defer': 1}", b"\xff", b"[" * 60_000])
def test_a_body_that_is_not_json_is_refused(web: Stack, sites: DemoNetwork, content: bytes) -> None:
    """It is 400 though no parameter is to blame; however deep it nests."""
    answer = web.client.post(RUN, content=content, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "rest_invalid_param")
    assert "JSON" in json.dumps(answer.json()["data"]["params"])
    assert sites.stats()["calls"] == 0


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("headers", [FORM, JSON, {}])
def test_a_large_body_is_refused(web: Stack, sites: DemoNetwork, headers: dict[str, str], chunked: bool) -> None:
    """More than 64 KiB is 413, whether its length is announced or not, and starts nothing; 64 KiB is taken."""

    def post(size: int) -> httpx.Response:
        content: Any = iter([b" " * size]) if chunked else b" " * size
        return web.client.post(RUN, content=content, headers=headers)

    answer = post(65_537)
    assert (answer.status_code, answer.json()["data"]) == (413, {"status": 413})
    assert sites.stats()["calls"] == 0
    assert post(65_536).status_code == 200


@pytest.mark.parametrize(("content", "status"), [("{", 400), ("x" * 70_000, 413)])
def test_a_flaw_in_the_body_is_told_in_actions_text(web: Stack, content: str, status: int) -> None:
    """ga=1 in the query holds though the body cannot be read."""
    answer = web.client.post(f"{RUN}?ga=1", content=content, headers=JSON)
    assert answer.status_code == status
    assert answer.text.startswith("::error::")


@pytest.mark.parametrize("content", ["{", "x" * 70_000, '{"token": "\\ud800"}'])
def test_who_calls_is_asked_before_what_they_sent(web: Stack, content: str) -> None:
    """A stranger learns nothing about a bad body: authentication comes first."""
    answer = httpx.post(f"http://127.0.0.1:{web.port}{RUN}?defer=maybe", content=content, headers=JSON)
    assert answer.status_code in (401, 403)
    assert answer.json()["code"].startswith("all_sites_cron_auth_")
