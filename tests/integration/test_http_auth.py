"""Who calls, and may they: every line of CONTRACT section 3."""

import subprocess
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from jobs import keys
from service.embedded import EmbeddedValkey
from tests.integration.stack import API, TOKEN, Stack
from wordpress.demo_network import DemoNetwork, running

READER, STARTER, UMLAUT = "reader-secret", "starter-secret", "schlüssel-Ж"
RUN, PROCESS, SHOWN = f"{API}/run", f"{API}/process-queue", f"{API}/runs/0123456789abcdef"
MISSING, INVALID = "all_sites_cron_auth_missing", "all_sites_cron_auth_invalid"
BASIC = "Basic dXNlcjpwYXNz"


def bearer(token: str) -> dict[bytes, bytes]:
    """The header with a token's bytes."""
    return {b"Authorization": b"Bearer " + token.encode()}


@pytest.fixture(scope="module")
def guarded_stack(valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A web process with tokens of both scopes behind trusted proxies."""
    made = Stack(valkey.url, tmp_path_factory.mktemp("auth"))
    made.client.headers.pop("Authorization")
    tokens = f"reader:read:{READER},starter:run:{STARTER},umlaut:run:{UMLAUT}"
    made.set(auth_tokens=tokens, trusted_proxies="127.0.0.0/8,10.0.0.0/8,fd00::/8", log_level="debug")
    try:
        with running(DemoNetwork.plain(1)) as network:
            made.use(network)
            made.web()
            yield made
    finally:
        made.close()


@pytest.fixture
def guarded(guarded_stack: Stack, redis_url: str) -> Stack:
    """The same with nothing in Redis."""
    return guarded_stack


@pytest.mark.parametrize(
    ("header", "query", "status", "code"),
    [
        (None, None, 401, MISSING),
        (None, "", 401, MISSING),
        ("Bearer", None, 401, MISSING),
        (BASIC, None, 401, MISSING),
        (f"Bearer {TOKEN}", None, 200, None),
        (f"bearer {TOKEN}", None, 200, None),
        (f"BEARER  {TOKEN}", None, 200, None),
        (None, TOKEN, 200, None),
        (BASIC, TOKEN, 200, None),
        ("Bearer wrong", None, 403, INVALID),
        (None, "wrong", 403, INVALID),
        ("Bearer wrong", TOKEN, 403, INVALID),
        (f"Bearer {TOKEN}", "wrong", 200, None),
        (f"Bearer {TOKEN}x", None, 403, INVALID),
        (f"Bearer {TOKEN[:-1]}", None, 403, INVALID),
        (f"Bearer {TOKEN.upper()}", None, 403, INVALID),
        (f"Bearer {STARTER}", None, 200, None),
        (None, STARTER, 200, None),
        (f"Bearer {READER}", None, 403, INVALID),
        (f"Bearer {UMLAUT}", None, 200, None),
        (None, UMLAUT, 200, None),
        ("Bearer schlussel", None, 403, INVALID),
        ("Bearer \udcff\udcfe", None, 403, INVALID),
        (None, "\udcff\udcfe", 403, INVALID),
        (f"Bearer starter:run:{STARTER}", None, 403, INVALID),
    ],
)
def test_the_token_of_a_call(
    guarded: Stack, header: str | None, query: str | None, status: int, code: str | None
) -> None:
    """The header first, else the query; a wrong header beats a right query token; bytes are compared as they are."""
    headers = {} if header is None else {b"Authorization": header.encode("utf-8", "surrogateescape")}
    encoded = quote(query, errors="surrogateescape") if query is not None else None
    answer = guarded.client.post(RUN if encoded is None else f"{RUN}?token={encoded}", headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json().get("code") == code
    assert answer.headers["cache-control"] == "no-store"
    if code:
        assert answer.json()["data"] == {"status": status}
        assert answer.json()["message"]
    assert (answer.headers.get("www-authenticate") == "Bearer") is (status == 401)


@pytest.mark.parametrize(("headers", "status"), [({}, 401), (bearer("wrong"), 403), (bearer(READER), 403)])
def test_a_refusal_in_actions_text(guarded: Stack, headers: dict[bytes, bytes], status: int) -> None:
    """ga=1 makes each one error line with the text of the JSON."""
    message = guarded.client.post(RUN, headers=headers).json()["message"]
    answer = guarded.client.post(f"{RUN}?ga=1", headers=headers)
    assert (answer.status_code, answer.text) == (status, f"::error::{message}\n")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", RUN, {TOKEN, STARTER}),
        ("GET", RUN, {TOKEN, STARTER}),
        ("POST", "/wp-json/dss-cron/v1/run", {TOKEN, STARTER}),
        ("POST", PROCESS, {TOKEN, STARTER}),
        ("GET", SHOWN, {TOKEN, STARTER, READER}),
        ("GET", "/metrics", {TOKEN, STARTER, READER}),
        ("GET", API, {TOKEN, STARTER, READER, ""}),
        ("GET", "/livez", {TOKEN, STARTER, READER, ""}),
        ("GET", "/readyz", {TOKEN, STARTER, READER, ""}),
    ],
)
def test_scopes(guarded: Stack, method: str, path: str, allowed: set[str]) -> None:
    """`run` starts and reads, `read` only reads, and three routes ask nobody."""
    statuses = {
        token: guarded.client.request(method, path, headers=bearer(token) if token else {}).status_code
        for token in (TOKEN, STARTER, READER, "")
    }
    assert {token for token, status in statuses.items() if status not in (401, 403)} == allowed, statuses


def test_the_run_says_whose_token_it_was(guarded: Stack) -> None:
    """The record has the token's name."""
    answer = guarded.client.post(RUN, headers=bearer(STARTER))
    assert guarded.run(answer.json()["run_id"]).by == "starter"


def wrong(stack: Stack, forwarded: str | None = None, *, header: bool = True) -> httpx.Response:
    """A call with a wrong token, by a proxy if `forwarded` is given."""
    headers = bearer("wrong") if header else {}
    if forwarded is not None:
        headers[b"X-Forwarded-For"] = forwarded.encode()
    return stack.client.post(RUN if header else f"{RUN}?token=wrong", headers=headers)


def test_the_eleventh_wrong_token_of_a_minute(guarded: Stack) -> None:
    """Ten are told that they are wrong, the next that there were too many; a right token still passes."""
    assert [wrong(guarded, header=bool(n % 2)).status_code for n in range(10)] == [403] * 10
    answer = wrong(guarded)
    assert (answer.status_code, answer.json()["code"]) == (429, "all_sites_cron_auth_rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert guarded.client.post(f"{RUN}?ga=1&token=wrong").text.startswith("::error::Too many wrong tokens.")
    assert guarded.client.post(RUN, headers=bearer(TOKEN)).status_code == 200
    assert guarded.client.post(RUN).status_code == 401, "no token is no wrong token"
    left = guarded.redis.ttl(keys.wrong_tokens("127.0.0.1"))
    assert isinstance(left, int)
    assert 0 < left <= 60
    guarded.redis.delete(keys.wrong_tokens("127.0.0.1"))
    assert wrong(guarded).status_code == 403, "the minute is over"


@pytest.mark.parametrize(
    ("forwarded", "other"),
    [
        ("198.51.100.7", "198.51.100.8"),
        ("198.51.100.7, 10.1.2.3", "198.51.100.8, 10.1.2.3"),
        ("203.0.113.{n}, 198.51.100.7, 10.1.2.3, 127.0.0.9", "198.51.100.7, 198.51.100.8, 10.1.2.3"),
        ("2001:db8::7", "2001:DB8:0::8"),
        ("2001:db8::{n}, 2001:DB8:0::7, fd00::1", "2001:db8::8"),
    ],
)
def test_wrong_tokens_are_counted_by_the_rightmost_untrusted_hop(guarded: Stack, forwarded: str, other: str) -> None:
    """What the caller wrote left of it changes nothing; another address is not held to account."""
    assert [wrong(guarded, forwarded.format(n=n)).status_code for n in range(11)] == [403] * 10 + [429]
    assert wrong(guarded, other).status_code == 403


def test_forwarded_addresses_count_only_behind_a_trusted_proxy(web: Stack) -> None:
    """Without TRUSTED_PROXIES the address is the peer's, whatever X-Forwarded-For claims; another peer is free."""
    tries = [{**bearer("wrong"), b"X-Forwarded-For": f"198.51.100.{n}".encode()} for n in range(11)]
    assert [web.client.post(RUN, headers=headers).status_code for headers in tries] == [403] * 10 + [429]
    transport = httpx.HTTPTransport(local_address="127.0.0.77")
    with httpx.Client(base_url=web.client.base_url, transport=transport) as neighbour:
        assert neighbour.post(RUN, headers=bearer("wrong")).status_code == 403


def test_no_token_ever_reaches_the_log_or_redis(guarded: Stack) -> None:
    """Right, wrong, in header, query and body, on refusals and errors, at log level debug."""
    secrets = [TOKEN, READER, STARTER, UMLAUT, "wr0ng-secret"]
    for token in secrets:
        run_id = guarded.client.post(RUN, params={"token": token}).json().get("run_id", "0" * 16)
        guarded.client.post(RUN, headers=bearer(token), params={"defer": "maybe"})
        guarded.client.post(RUN, data={"token": token})
        guarded.client.get(f"{API}/nothing", params={"token": token})
        guarded.redis.hset(keys.run(run_id), mapping={"status": "succeeded", "queued_ms": "broken"})
        guarded.redis.expire(keys.run(run_id), 60)
        guarded.client.get(f"{API}/runs/{run_id}", params={"token": token})
    assert "Traceback" in guarded.log("web"), "the errors were logged"
    kept = b"".join(guarded.redis.dump(key) or b"" for key in guarded.redis.scan_iter("*"))
    command = subprocess.check_output(["ps", "-o", "args=", "-p", str(guarded.processes[0].pid)]).decode()
    for token in secrets:
        for place in (guarded.log("web"), kept.decode("latin-1"), command):
            assert token not in place
            assert token.encode().decode("latin-1") not in place
