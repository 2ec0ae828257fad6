"""`…/runs/{id}/events`: a run as Server-Sent Events, and what bounds such a stream (CONTRACT section 1)."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs import keys
from tests.integration.processes import until
from tests.integration.stack import API, TOKEN, Stack
from wordpress.demo_network import DemoNetwork

RUN_ID = "00000000000000aa"
IMPATIENT = """
import service.connections, service.events, service.parameters, service.web, sse_starlette.sse
service.connections.HEAD_SECONDS = service.parameters.BODY_SECONDS = 0.5
service.web.MOST_STREAMS, service.events.SEND_SECONDS = 2, 1.0
sse_starlette.sse.EventSourceResponse.DEFAULT_PING_INTERVAL = 0.25
"""


@pytest.fixture
def impatient(stack: Stack, few: DemoNetwork, tmp_path: Path) -> Stack:
    """A web process that has room for two streams, writes a comment each 0.25 s and waits 1 s for a reader."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(IMPATIENT)
    stack.environ["PYTHONPATH"] = f"{folder}:{stack.environ['PYTHONPATH']}"
    stack.web()
    return stack


@contextlib.contextmanager
def stream(web: Stack, run_id: str) -> Iterator[Iterator[str]]:
    """The lines of a stream that was accepted."""
    with web.client.stream("GET", f"{API}/runs/{run_id}/events") as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        yield answer.iter_lines()


def events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """(name, data) of each event; comments are passed over."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, line[6:]
        else:
            assert line == "" or line.startswith(":")


def shown(lines: Iterator[str]) -> dict[str, Any]:
    """The next event's run."""
    name, data = next(events(lines))
    assert name == "run"
    return dict(json.loads(data))


def waiting(web: Stack, **fields: object) -> None:
    """A run that nobody takes up; sets fields of it."""
    key = keys.run(RUN_ID)
    web.redis.hset(key, mapping={"status": "queued", "queued_ms": 1, **{name: str(v) for name, v in fields.items()}})
    web.redis.expire(key, 60)


def test_the_state_on_connect_then_each_change_until_the_end(web: Stack, sites: DemoNetwork) -> None:
    """Queued, running, further on, ended, as …/runs/{id} shows it; then `end` with the status, and nothing more."""
    for site in sites.sites.all:
        site.latency_ms = 1700 if site.id > 2 else 0
    run_id = web.trigger(defer=1).json()["run_id"]
    with stream(web, run_id) as lines, ThreadPoolExecutor(1) as pool:
        seen = [shown(lines)]
        walk = pool.submit(httpx.post, f"{web.client.base_url}{API}/process-queue", headers=web.client.headers)
        *states, end = events(lines)
        assert walk.result().json()["count"] == 6
    assert {name for name, _ in states} == {"run"}
    seen += [json.loads(data) for _, data in states]
    assert [seen[0]["status"], seen[-1]["status"], end] == ["queued", "succeeded", ("end", "succeeded")]
    assert seen[-1] == web.client.get(f"{API}/runs/{run_id}").json()
    counts = [run["count"] for run in seen]
    assert counts == sorted(counts)
    assert {"running"} < {run["status"] for run in seen}
    assert 2 in counts
    assert all(one != other for one, other in pairwise(seen)), "only changes are told"


def test_a_run_that_has_ended_is_told_once(web: Stack, sites: DemoNetwork) -> None:
    """And the stream ends."""
    run_id = web.trigger().json()["run_id"]
    with stream(web, run_id) as lines:
        (name, data), end = events(lines)
    assert (name, json.loads(data), end) == ("run", web.client.get(f"{API}/runs/{run_id}").json(), ("end", "succeeded"))


def test_a_run_that_is_cancelled_ends_its_streams(web: Stack, sites: DemoNetwork) -> None:
    """They are told how."""
    run_id = web.trigger(defer=1).json()["run_id"]
    with stream(web, run_id) as lines:
        shown(lines)
        httpx.post(f"{web.client.base_url}{API}/runs/{run_id}/cancel", headers=web.client.headers)
        assert list(events(lines))[-1] == ("end", "cancelled")


def test_a_run_whose_record_expires_ends_its_streams(web: Stack) -> None:
    """Without an `end`: nobody knows how it ended."""
    waiting(web)
    with stream(web, RUN_ID) as lines:
        shown(lines)
        web.redis.delete(keys.run(RUN_ID))
        assert not list(events(lines))


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [(RUN_ID, {}, 404), ("nonsense", {}, 404), (RUN_ID, {"Authorization": "Bearer wrong"}, 403)],
)
def test_what_cannot_be_streamed_is_answered_as_ever(
    web: Stack, path: str, headers: dict[str, str], status: int
) -> None:
    """An unknown run, a wrong token: JSON, not a stream."""
    answer = web.client.get(f"{API}/runs/{path}/events", headers=headers)
    assert (answer.status_code, answer.json()["data"]["status"]) == (status, status)


def test_head_opens_no_stream(web: Stack) -> None:
    """The headers, and the end."""
    waiting(web)
    answer = web.client.head(f"{API}/runs/{RUN_ID}/events")
    assert (answer.status_code, answer.content) == (200, b"")


def test_comments_keep_it_alive_and_nothing_cuts_it(impatient: Stack) -> None:
    """While nothing changes, longer than the bounds of heads and bodies."""
    waiting(impatient)
    started = time.monotonic()
    with stream(impatient, RUN_ID) as lines:
        shown(lines)
        comments = (line for line in lines if line.startswith(": ping"))
        while time.monotonic() - started < 1.5:
            next(comments)
        waiting(impatient, status="running")
        assert shown(lines)["status"] == "running"


def test_streams_are_bounded_and_who_leaves_makes_room(impatient: Stack) -> None:
    """503 with Retry-After for one too many; everything else is served on."""
    waiting(impatient)
    path = f"{API}/runs/{RUN_ID}/events"
    with stream(impatient, RUN_ID) as first, stream(impatient, RUN_ID) as second:
        assert shown(first) == shown(second)
        refused = impatient.client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (503, "rest_too_many_streams")
        assert int(refused.headers["retry-after"]) > 0
        assert impatient.client.get(f"{API}/runs/{RUN_ID}").status_code == 200
    until(lambda: impatient.client.head(path).status_code == 200)


def silent(web: Stack) -> socket.socket:
    """Whoever asks for a stream of large events and never reads."""
    text = json.dumps(["http://a.example", "failed", "dns", "x" * 100_000])
    web.redis.hset(keys.failures(RUN_ID), mapping={str(n): text for n in range(100)})
    web.redis.expire(keys.failures(RUN_ID), 60)
    peer = socket.create_connection(("127.0.0.1", web.port), 10)
    path = f"{API}/runs/{RUN_ID}/events"
    peer.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    return peer


def test_who_does_not_read_is_hung_up_on(impatient: Stack) -> None:
    """And makes room."""
    waiting(impatient)
    path = f"{API}/runs/{RUN_ID}/events"
    with silent(impatient), silent(impatient):
        until(lambda: impatient.client.head(path).status_code == 503)
        until(lambda: impatient.client.head(path).status_code == 200)
    assert "Traceback" not in impatient.log("web")


def test_sigterm_ends_every_stream_at_once(stack: Stack, few: DemoNetwork) -> None:
    """The process does not wait for its readers, and says nothing of it."""
    web = stack.web()
    waiting(stack)
    with stream(stack, RUN_ID) as lines:
        shown(lines)
        started = time.monotonic()
        web.terminate()
        assert not list(events(lines))
        web.wait(8)
        assert time.monotonic() - started < 5, "uvicorn would have waited for 9 s"
    assert '"level": "error"' not in stack.log("web")
