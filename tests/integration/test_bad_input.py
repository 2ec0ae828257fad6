"""Site lists that are missing, wrong or hostile, at the level of the whole service (CONTRACT sections 2, 5 and 8)."""

import dataclasses
import json
import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from jobs.sources.feed import FeedSource
from jobs.world import World, build
from service import answers
from tests.integration.odd_servers import OddServer, redirecting, serving, walked
from tests.integration.stack import Stack, environ_of
from wordpress.demo_network import DemoNetwork

SECRET = "s3cret"
OK_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def test_without_sites_a_sync_call_is_a_source_error_that_names_the_setting(stack: Stack) -> None:
    """And no trigger was sent, so the cooldown's claim is given back."""
    stack.web()
    for _ in range(2):
        answer = stack.trigger()
        assert (answer.status_code, answer.json()["error_code"]) == (502, "SOURCE_ERROR")
        assert "ALL_SITES_CRON_SITES" in answer.json()["message"]
    record = stack.client.get(answer.headers["Location"]).json()
    assert (record["status"], record["reason"]) == ("failed", "source")
    assert "ALL_SITES_CRON_SITES" in record["message"]
    text = stack.trigger(ga=1).text
    assert text.startswith("::error::")
    assert "ALL_SITES_CRON_SITES" in text


def test_without_sites_the_command_line_says_which_setting_is_missing(stack: Stack) -> None:
    done = stack.command("run")
    assert done.returncode == 1
    assert "ALL_SITES_CRON_SITES" in json.loads(done.stdout)["message"]


def bad_lines(origin: str) -> dict[int, str]:
    """Line number → an entry that is no site; the lines between are for good ones."""
    return {
        2: "http://",
        3: "javascript:alert(1)//",
        4: f"http://admin:{SECRET}@{origin}/",
        5: f"http://{origin}/?token={SECRET}",
        6: f"http://{origin}/\rX-Evil: 1",
        7: f"http://{origin}/a b",
        8: f"ftp://{origin}/",
        9: "not a url at all",
        11: f"http://{origin}/",  # a duplicate of line 1
        12: f"http://{origin}/\x1b[31m\u202e",
    }


def list_with_bad_lines(network: DemoNetwork, kind: str) -> tuple[str, dict[int, str]]:
    """A list with two good sites, on lines 1 and 10 (behind the heading, if any)."""
    origin = network.origin.removeprefix("http://")
    good = {1: network.sites.all[0].url, 10: network.sites.all[4].url}
    lines = bad_lines(origin)
    text = "".join(f"{line}\n" for _, line in sorted({**good, **lines}.items()))
    if kind == "csv":
        return f"url\n{text}", {number + 1: line for number, line in lines.items()}
    return text, lines


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_bad_entries_are_named_with_their_line_and_the_good_ones_walked(
    stack: Stack, network: DemoNetwork, kind: str
) -> None:
    """They do not fail the run, and nothing secret in them is told to anybody."""
    text, bad = list_with_bad_lines(network, kind)
    path = stack.folder / f"bad.{kind}"
    path.write_bytes(text.encode())
    stack.set(sites=path)
    stack.web()

    answer = stack.trigger()
    assert (answer.status_code, answer.json()["success"], answer.json()["count"]) == (200, True, 2)
    record = stack.client.get(answer.headers["Location"])
    assert (record.json()["status"], record.json()["bad_entries"]) == ("succeeded", len(bad))
    log = stack.log("web")
    for number in bad:
        assert f"bad.{kind} line {number}:" in log
    assert "listed twice" in log
    for seen in (log, answer.text, record.text):
        assert SECRET not in seen
        assert "\x1b" not in seen
        assert "\u202e" not in seen
    assert network.stats()["calls"] == network.stats()["ran_sites"] == 2
    assert network.stats()["wrong_calls"] == 0


@pytest.mark.parametrize("kind", ["txt", "csv", "json"])
def test_ten_megabytes_of_garbage_end_the_run_with_one_short_sentence(stack: Stack, kind: str) -> None:
    path = stack.folder / f"garbage.{kind}"
    path.write_bytes(random.Random(1).randbytes(10_000_000))
    done = stack.command("run", ALL_SITES_CRON_SITES=str(path))
    assert done.returncode == 1
    body = json.loads(done.stdout)
    assert body["error_code"] == "SOURCE_ERROR"
    assert f"garbage.{kind}" in body["message"]
    assert len(body["message"]) < 500
    assert body["message"].isprintable()
    assert len(done.stderr) < 20_000
    assert done.stderr.isascii()


def page(*ids: int, following: int | None, origin: str = "http://127.0.0.1:1") -> bytes:
    """A complete answer with one page of a feed."""
    body = json.dumps(
        {"version": 1, "sites": [{"id": n, "url": f"{origin}/s{n}"} for n in ids], "next": following}
    ).encode()
    return OK_JSON + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def drip(peer: socket.socket, _head: str) -> None:
    """A byte now and then, for ever."""
    peer.sendall(OK_JSON + b"\r\n")
    while True:
        peer.sendall(b" ")
        time.sleep(0.05)  # the slowness that is tested


def endless(peer: socket.socket, _head: str) -> None:
    peer.sendall(OK_JSON + b'\r\n{"version":1,"sites":[')
    while True:
        peer.sendall(b'{"id":1,"url":"http://127.0.0.1:1"},' * 1000)


def new_pages(peer: socket.socket, head: str) -> None:
    """Every page leads to one more."""
    after = int(head.partition("after=")[2].partition("&")[0])
    peer.sendall(page(following=after + 1))
    peer.close()


def fed(stack: Stack, server: OddServer, limits: dict[str, float]) -> World:
    """A world whose site source is this feed."""
    world = build(environ_of(stack, rate_limit_seconds=0, request_timeout=1, max_retries=0, lock_timeout=2))

    def source() -> FeedSource:
        limited: type[FeedSource] = type("Limited", (FeedSource,), limits)
        return limited(f"{server.url}/feed", token="t0ken", guard=world.guard)

    return dataclasses.replace(world, open_source=source)


SHORT = {"deadline": 0.5}
SLOW_FEEDS = [
    pytest.param(drip, SHORT, "no complete answer within 0.5 s", id="slow"),
    pytest.param(lambda peer, head: peer.recv(1), SHORT, "no complete answer within 0.5 s", id="silent"),
    pytest.param(endless, {"page_bytes": 2**20}, "larger than 1048576 bytes", id="endless"),
    pytest.param(new_pages, {"most_pages": 20}, "more than 20 pages", id="endless pages"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html", {}, "not JSON", id="not JSON"),
    pytest.param(page(1, following=1)[:-4] + b"    ", {}, "not complete, correct JSON", id="cut off"),
    pytest.param(page(following=5), {}, "loops", id="loops"),
    pytest.param(page(1, 2, following=2), {}, "id 1 is not above 2", id="repeats"),
    pytest.param(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", {}, "answer 500", id="broken"),
]


@pytest.mark.parametrize(("answer", "limits", "text"), SLOW_FEEDS)
def test_a_feed_that_cannot_be_read_fails_the_run_and_says_why(
    stack: Stack, answer: Callable[[socket.socket, str], None] | bytes, limits: dict[str, float], text: str
) -> None:
    started = time.monotonic()
    with serving(answer) as server:
        run = walked(fed(stack, server, limits))
    assert (run.status, run.reason) == ("failed", "source")
    assert text in run.message
    assert "t0ken" not in run.message
    finished = answers.finished(run)
    assert (finished.status, finished.body["error_code"]) == (502, "SOURCE_ERROR")
    assert len(server.heads) <= 25, "it does not ask for ever"
    assert time.monotonic() - started < 20, "it did not hang"


def test_sites_of_pages_read_before_a_feed_broke_are_called_all_the_same(stack: Stack, network: DemoNetwork) -> None:
    """The run is failed, and says how many were."""
    good = page(3, following=3, origin=network.origin)

    def breaks(peer: socket.socket, head: str) -> None:
        peer.sendall(good if "after=0" in head else b"HTTP/1.1 500 Oops\r\n\r\n")
        peer.close()

    with serving(breaks) as server:
        run = walked(fed(stack, server, {}))
    assert (run.status, run.reason, run.count) == ("failed", "source", 1)
    assert network.stats()["calls"] == 1


def test_a_feed_cannot_steer_the_service_to_a_private_address(stack: Stack) -> None:
    """The address it redirects to is judged like its own, before anything is sent."""
    with serving(b"HTTP/1.1 200 OK\r\n\r\n", host="127.0.0.2") as inside, serving(redirecting(inside.url)) as server:
        stack.set(allowed_networks="127.0.0.1/32")
        run = walked(fed(stack, server, {}))
    assert (run.status, run.reason) == ("failed", "source")
    assert "127.0.0.2" in run.message
    assert "ALL_SITES_CRON_ALLOWED_NETWORKS=127.0.0.2/32" in run.message
    assert inside.heads == []


def test_sites_of_a_feed_are_judged_by_the_address_they_have(stack: Stack) -> None:
    with serving(b"") as inside:
        body = page(1, following=None, origin=inside.url.replace("127.0.0.1", "2130706433"))
        with serving(body, host="127.0.0.3") as server:
            stack.set(allowed_networks="127.0.0.3/32")
            run = walked(fed(stack, server, {}))
    assert (run.status, [failure.reason for failure in run.failures]) == ("partial", ["blocked"])
    assert inside.heads == []


def test_many_bad_entries_are_logged_twenty_times_and_then_counted(stack: Stack, network: DemoNetwork) -> None:
    path = stack.folder / "many.txt"
    path.write_text(network.sites.all[0].url + "\n" + "ftp://x/\n" * 60)
    with capture_logs() as lines:
        run = walked(build(environ_of(stack, sites=path)))
    assert (run.status, run.bad_entries) == ("succeeded", 60)
    assert sum(line["event"] == "site list" for line in lines) == 20
    assert [line["not_shown"] for line in lines if line["event"] == "site list has more problems"] == [40]


def test_a_file_that_disappears_or_is_no_file_fails_the_run_with_its_name(stack: Stack) -> None:
    for path in (Path("/nowhere/sites.txt"), stack.folder / "folder.csv"):
        with suppress(OSError):
            path.mkdir()
        run = walked(build(environ_of(stack, sites=path, rate_limit_seconds=0)))
        assert (run.status, run.reason) == ("failed", "source")
        assert str(path) in run.message
