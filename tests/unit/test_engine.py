"""The engine against real servers on loopback: what is sent, and how each way to end is told apart."""

import contextlib
import datetime as dt
import http.client
import io
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine import CurlEngine
from tests.unit.loopback import (
    Handler,
    Serve,
    answering,
    finish,
    recording,
    request,
    reset,
    serving,
    trigger,
)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with serving() as serve:
        yield serve


@pytest.fixture
def engine() -> Iterator[CurlEngine]:
    with contextlib.closing(CurlEngine(timeout=10, user_agent="all-sites-cron/3.0.0")) as engine:
        yield engine


# What is sent


def test_a_trigger_is_a_post_with_an_empty_body(engine: CurlEngine, serve: Serve) -> None:
    """Byte for byte: wp-cron.php dies on a body, and needs the value of doing_wp_cron empty."""
    heads: list[bytes] = []
    port = serve(recording(heads))
    result = trigger(engine, port)
    assert (result.tag, result.status, result.error) == ("tag", 200, None)
    assert heads == [
        b"POST /wp-cron.php?doing_wp_cron HTTP/1.1\r\n"
        b"Host: site.example:%d\r\n"
        b"User-Agent: all-sites-cron/3.0.0\r\n"
        b"Accept: */*\r\n"
        b"Content-Length: 0\r\n\r\n" % port
    ]


def test_headers_are_sent_beside_and_instead_of_the_usual_ones(engine: CurlEngine, serve: Serve) -> None:
    """Basic auth and another Host for one trigger; the next on the same handle has neither."""
    heads: list[bytes] = []
    port = serve(recording(heads))
    engine.start(1, f"http://site.example:{port}/", "127.0.0.1", ["Authorization: Basic eDp5", "Host: other.example"])
    finish(engine)
    trigger(engine, port)
    parsed = [http.client.parse_headers(io.BytesIO(head.partition(b"\r\n")[2])) for head in heads]
    assert [(head["Host"], head["Authorization"]) for head in parsed] == [
        ("other.example", "Basic eDp5"),
        (f"site.example:{port}", None),
    ]


def test_a_cookie_is_never_sent_back(engine: CurlEngine, serve: Serve) -> None:
    """What one answer sets, no later trigger carries, on the same or another connection."""
    heads: list[bytes] = []
    port = serve(recording(heads, b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"))
    for _ in range(3):
        trigger(engine, port)
    assert len(heads) == 3
    assert not any(b"cookie" in head.lower() for head in heads)


def test_proxies_of_the_environment_are_ignored(
    engine: CurlEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would choose the address, and the guard would have judged for nothing."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert trigger(engine, serve(recording([]))).status == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.77", "::1"])
def test_the_pinned_address_is_reached(engine: CurlEngine, serve: Serve, address: str) -> None:
    """A name that resolves nowhere reaches the address that was judged; Host keeps the name."""
    heads: list[bytes] = []
    port = serve(recording(heads), host=address)
    assert trigger(engine, port, host="nowhere.invalid", address=address).status == 200
    assert f"Host: nowhere.invalid:{port}\r\n".encode() in heads[0]


def test_another_pin_is_another_connection(engine: CurlEngine, serve: Serve) -> None:
    """A kept connection is not used for a host whose address has changed since."""
    port = serve(recording([]))
    assert trigger(engine, port).status == 200
    assert trigger(engine, port, address="127.0.0.99").error == "connect"


def test_only_http_and_https_are_spoken(engine: CurlEngine, tmp_path: Path) -> None:
    """Not file:, not gopher:, whatever else lets them in."""
    (tmp_path / "secret").write_text("x")
    engine.start(1, f"file://{tmp_path}/secret", "127.0.0.1")
    engine.start(2, "gopher://127.0.0.1:1/", "127.0.0.1")
    assert [(r.status, r.error, r.passing) for r in finish(engine, 2)] == [(0, "connect", False)] * 2


# How it ends


def test_a_name_instead_of_an_address_is_dns(engine: CurlEngine) -> None:
    """curl's own resolver is not meant to be used; where it is, its failure is called so."""
    result = trigger(engine, 1, address="x" * 64)
    assert (result.status, result.error, result.passing) == (0, "dns", True)


def test_a_refused_connection_is_connect(engine: CurlEngine) -> None:
    """It may pass; the detail is for a person."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        result = trigger(engine, unheard.getsockname()[1])
    assert (result.status, result.error, result.passing) == (0, "connect", True)
    assert "Could not connect" in result.detail


def cut_after_the_request(peer: socket.socket) -> None:
    request(peer)
    reset(peer)


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(cut_after_the_request, id="reset"),
        pytest.param(request, id="closed"),
        pytest.param(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), id="cut short"),
        pytest.param(answering(b"\x00\xff\xfe garbage\r\n\r\n"), id="garbage"),
        pytest.param(answering(b"SSH-2.0-OpenSSH_9.2\r\n"), id="another protocol"),
        pytest.param(answering(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), id="bad length"),
        pytest.param(answering(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 900_000 + b"\r\n\r\n"), id="header flood"),
    ],
)
def test_no_proper_answer_after_sending_is_reset(engine: CurlEngine, serve: Serve, handler: Handler) -> None:
    """The request was sent and no status can be trusted."""
    result = trigger(engine, serve(handler))
    assert (result.status, result.error, result.passing) == (0, "reset", False)
    assert result.detail


@pytest.mark.parametrize("status", [204, 302, 404, 429, 500, 503])
def test_a_status_is_reported_as_it_is(engine: CurlEngine, serve: Serve, status: int) -> None:
    """What it means is the walker's business."""
    result = trigger(engine, serve(answering(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)))
    assert (result.status, result.error, result.detail) == (status, None, "")
    assert (result.redirect_url, result.retry_after) == (None, None)


def test_a_redirect_is_reported_and_not_followed(engine: CurlEngine, serve: Serve) -> None:
    """One request only; the target comes back absolute."""
    heads: list[bytes] = []
    port = serve(recording(heads, b"HTTP/1.1 301 Moved\r\nLocation: /wp/wp-cron.php\r\nContent-Length: 0\r\n\r\n"))
    result = trigger(engine, port)
    assert (result.status, result.redirect_url) == (301, f"http://site.example:{port}/wp/wp-cron.php")
    assert len(heads) == 1


def test_a_redirect_target_is_safe_to_print(engine: CurlEngine, serve: Serve) -> None:
    """Bytes that are no ASCII and control characters do not get through, nor more than 2,000 characters."""
    location = b"http://x/\xff\x1b[31m" + b"a" * 5000
    result = trigger(engine, serve(answering(b"HTTP/1.1 302 F\r\nLocation: " + location + b"\r\n\r\n")))
    assert result.redirect_url is not None
    assert result.redirect_url.isprintable()
    assert len(result.redirect_url) == 2000


@pytest.mark.parametrize(("value", "seconds"), [(b"12", 12), (b"soon", None), (b"0", None)])
def test_retry_after_is_in_seconds(engine: CurlEngine, serve: Serve, value: bytes, seconds: int | None) -> None:
    """None where it is missing, no number or zero."""
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: " + value + b"\r\nContent-Length: 0\r\n\r\n"
    assert trigger(engine, serve(answering(answer))).retry_after == seconds


def test_a_retry_after_date_becomes_seconds(engine: CurlEngine, serve: Serve) -> None:
    """RFC 9110 section 10.2.3 allows both forms."""
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90)
    date = later.strftime("%a, %d %b %Y %H:%M:%S GMT").encode()
    result = trigger(engine, serve(answering(b"HTTP/1.1 429 Busy\r\nRetry-After: " + date + b"\r\n\r\n")))
    assert result.retry_after is not None
    assert 60 < result.retry_after <= 90
