"""The routes: every spelling of an address, every wrong method, and what each route shows (CONTRACT section 1)."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from jobs import __version__
from tests.integration.processes import until
from tests.integration.stack import API, TOKEN, Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

LEGACY = "/wp-json/dss-cron/v1"
NO_ROUTE = {"code": "rest_no_route", "message": "No route was found matching the URL and request method."}
SPELLINGS = {
    API: API,
    f"/blog{API}": f"/blog{API}",
    f"/a/b{API}": f"/a/b{API}",
    f"/caf%C3%A9{API}": f"/caf%C3%A9{API}",
    "/?rest_route=/all-sites-cron/v1": "/?rest_route=/all-sites-cron/v1",
    "/blog/?rest_route=/all-sites-cron/v1": "/blog/?rest_route=/all-sites-cron/v1",
    "/index.php?rest_route=/all-sites-cron/v1": "/index.php?rest_route=/all-sites-cron/v1",
}


def raw(web: Stack, target: bytes) -> str:
    """The answer to a request whose target no client library would send."""
    request = (
        b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Length: 0\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", web.port), 10) as connection:
        connection.sendall(request % (target, TOKEN.encode()))
        parts = iter(lambda: connection.recv(65536), b"")
        return b"".join(parts).decode("latin-1")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("spelling", "location"), SPELLINGS.items())
@pytest.mark.parametrize("slash", ["", "/"])
def test_run_answers_under_every_spelling_and_points_there(
    web: Stack, sites: DemoNetwork, method: str, spelling: str, location: str, slash: str
) -> None:
    """A run is triggered by GET and POST in all of WordPress's spellings; Location keeps the caller's."""
    answer = web.client.request(method, f"{spelling}/run{slash}")
    assert (answer.status_code, answer.json()["count"]) == (200, 6)
    assert answer.headers["location"] == f"{location}/runs/{answer.json()['run_id']}"
    assert web.client.get(answer.headers["location"]).json()["status"] == "succeeded"


@pytest.mark.parametrize(
    ("target", "location"),
    [
        (f"//other.example{API}", f"/other.example{API}"),
        (f"/%2Fother.example{API}", f"/other.example{API}"),
        (f"/%5Cother.example{API}", f"/%5Cother.example{API}"),
        (f"/%0d%0aSet-Cookie:x{API}", f"/%0D%0ASet-Cookie%3Ax{API}"),
    ],
)
def test_location_never_leads_to_another_host_or_header(
    web: Stack, sites: DemoNetwork, target: str, location: str
) -> None:
    """What stands before /wp-json cannot make Location name another host, nor end its line."""
    head = raw(web, f"{target}/run".encode()).partition("\r\n\r\n")[0]
    assert head.startswith("HTTP/1.1 200"), head
    assert re.search(f"(?m)^location: {re.escape(location)}/runs/[0-9a-f]{{16}}\r$", head), head


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *((method, f"{API}/run", {"GET", "POST"}) for method in ("HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")),
        *((method, f"{LEGACY}/run", {"GET", "POST"}) for method in ("HEAD", "OPTIONS", "PUT")),
        *((method, f"{API}/process-queue", {"POST"}) for method in ("GET", "HEAD", "OPTIONS")),
        ("HEAD", "/?rest_route=/all-sites-cron/v1/run", {"GET", "POST"}),
        ("POST", f"{API}/runs/0123456789abcdef", {"GET", "HEAD"}),
        ("DELETE", API, {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_starts_nothing(
    web: Stack, sites: DemoNetwork, method: str, path: str, allowed: set[str]
) -> None:
    """It is 405 with Allow and WordPress's body; HEAD and OPTIONS touch neither Redis nor a site."""
    answer = web.client.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed
    assert answer.headers["cache-control"] == "no-store"
    if method != "HEAD":
        assert answer.json() == {**NO_ROUTE, "data": {"status": 405}}
    assert not list(web.redis.scan_iter("*"))
    assert sites.stats()["calls"] == 0


@pytest.mark.parametrize(
    "path",
    [
        "/wp-json/all-sites-cron/v1/ruin",
        "/wp-json/all-sites-cron/v2/run",
        "/wp-json/all-sites-cron/v1/run/more",
        "/wp-json/wp/v2/posts",
        "/wp-json/",
        "/wp-json/dss-cron/v1/process-queue",
        "/?rest_route=/nothing/v1",
    ],
)
def test_an_unknown_route_is_wordpress_404(web: Stack, path: str) -> None:
    """The body of WordPress core for a route that does not exist, never stored."""
    answer = web.client.post(path)
    assert (answer.status_code, answer.json()) == (404, {**NO_ROUTE, "data": {"status": 404}})
    assert answer.headers["cache-control"] == "no-store"


def test_an_unknown_route_in_actions_text(web: Stack) -> None:
    """ga=1 turns the 404 into one error line."""
    answer = web.client.get(f"{API}/ruin?ga=1")
    assert (answer.status_code, answer.text) == (404, f"::error::{NO_ROUTE['message']}\n")


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 200),
        ("?defer=1", {}, 202),
        ("?defer=1&ga=1", {}, 202),
        ("?defer=maybe", {}, 400),
        ("", {"Authorization": "Bearer wrong"}, 403),
        ("?ga=1", {"Authorization": "Bearer wrong"}, 403),
    ],
)
def test_the_alias_says_it_is_deprecated(
    web: Stack, sites: DemoNetwork, query: str, headers: dict[str, str], status: int
) -> None:
    """The legacy route does the same and carries Deprecation and Link, on refusals too; the new one does not."""
    answer = web.client.post(f"{LEGACY}/run{query}", headers=headers)
    assert answer.status_code == status
    assert re.fullmatch(r"@\d{10}", answer.headers["deprecation"]), "RFC 9745: a date as a structured field"
    assert answer.headers["link"] == f'<{API}/run>; rel="successor-version"'
    assert answer.headers["cache-control"] == "no-store"
    new = web.client.post(f"{API}/run{query}", headers=headers)
    assert not {"deprecation", "link"} & set(new.headers)


def test_the_alias_is_logged_once_a_process(stack: Stack, network: DemoNetwork) -> None:
    """Two calls of the legacy route leave one line; `check` tells how many there were, refused ones too."""
    stack.web()
    assert "dss-cron" not in stack.log("web")
    locations = [stack.client.get(f"{LEGACY}/run").headers["location"] for _ in range(2)]
    assert stack.log("web").count("dss-cron/v1/run") == 1
    assert locations[0].startswith(f"{API}/runs/")
    said = stack.command("check").stdout
    assert f"warning the legacy route {LEGACY}/run was called 2 times, the last on " in said
    assert f"→ Call {API}/run." in said


def test_a_refused_alias_call_points_to_the_run(web: Stack, sites: DemoNetwork) -> None:
    """A cooldown answer of the alias has Retry-After, Deprecation and the run's Location, as the new route's."""
    run_id = web.trigger().json()["run_id"]
    answer = web.client.get(f"{LEGACY}/run")
    assert answer.status_code == 429
    assert {"retry-after", "deprecation", "link"} <= set(answer.headers)
    assert answer.headers["location"] == f"{API}/runs/{run_id}"


@pytest.mark.parametrize("spelling", ["/wp-json", "/blog/wp-json", "/?rest_route="])
def test_the_index_names_every_route(web: Stack, spelling: str) -> None:
    """Namespace, version and the routes with their methods; no token is asked for."""
    answer = httpx.get(f"http://127.0.0.1:{web.port}{spelling}/all-sites-cron/v1")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    body = answer.json()
    assert (body["namespace"], body["version"]) == ("all-sites-cron/v1", __version__)
    methods = {route: about["methods"] for route, about in body["routes"].items()}
    assert methods["/all-sites-cron/v1/run"] == ["GET", "POST"] == methods["/dss-cron/v1/run"]
    assert methods["/all-sites-cron/v1/process-queue"] == ["POST"]
    assert "GET" in methods["/all-sites-cron/v1/runs/{run_id}"]


def test_a_run_is_shown_with_its_progress(web: Stack, sites: DemoNetwork) -> None:
    """…/runs/{id}: who asked and how; how far it is while it walks; how it ended, in UTC."""
    for site in sites.sites.all:
        site.latency_ms = 1200 if site.id > 2 else 0
    where = web.trigger(defer=1).headers["location"]

    def shown() -> dict[str, Any]:
        return dict(web.client.get(where).json())

    waiting = {"status": "queued", "mode": "redis", "by": "default", "count": 0, "started_at": None, "ended_at": None}
    assert shown().items() >= waiting.items()
    with ThreadPoolExecutor(1) as pool:
        walk = pool.submit(web.client.post, f"{API}/process-queue")
        until(lambda: shown()["count"] == 2)
        assert shown().items() >= {"status": "running", "sites_listed": 6, "ended_at": None}.items()
        assert walk.result().json()["run_id"] == where.rpartition("/")[2]
    ended = shown()
    assert ended.items() >= {"status": "succeeded", "count": 6, "dispatched": 6, "errors": 0, "failing": []}.items()
    assert ended["batches"] == {"done": 1, "listed": 1, "all_listed": True}
    assert ended["queued_at"] <= ended["started_at"] <= ended["ended_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ended["ended_at"])


def test_a_run_shows_its_failing_sites(web: Stack, sites: DemoNetwork) -> None:
    """A failing site with its reason and text, the outcomes by name."""
    sites.sites.by_id[3].behaviour = Behaviour.ERROR500
    shown = web.client.get(web.trigger().headers["location"]).json()
    assert (shown["status"], shown["outcomes"]) == ("partial", {"dispatched": 5, "http_5xx": 1})
    url = sites.sites.by_id[3].url
    failing = {"site_id": "3", "url": url, "outcome": "failed", "reason": "http_5xx", "detail": "answered 500"}
    assert (shown["failing"], shown["failing_total"]) == ([failing], 1)


@pytest.mark.parametrize("run_id", ["fedcba9876543210", "nonsense", "0123456789abcdef:failed", "%FF%FE", "x" * 5000])
def test_an_unknown_run_is_404(web: Stack, run_id: str) -> None:
    """Whatever stands for an id, also the name of another key, is a run that is not known."""
    web.redis.hset("all_sites_cron:run:0123456789abcdef:failed", "3", "[]")
    web.redis.expire("all_sites_cron:run:0123456789abcdef:failed", 60)
    answer = web.client.get(f"{API}/runs/{run_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "rest_run_not_found")
    assert answer.json()["data"] == {"status": 404}


def test_readyz_counts_the_workers_that_listen(stack: Stack, network: DemoNetwork) -> None:
    """Ready without a token; a missing worker is a warning, a worker that listens is counted, one that left is not."""
    stack.web()
    anybody = httpx.Client(base_url=stack.client.base_url)
    body = anybody.get("/readyz").json()
    assert body == {
        "status": "ready",
        "checks": {"redis": "ok"},
        "workers": 0,
        "warning": "no worker is listening",
    }
    worker = stack.worker()
    assert anybody.get("/readyz").json() == {"status": "ready", "checks": {"redis": "ok"}, "workers": 1}
    worker.terminate()
    until(lambda: anybody.get("/readyz").json()["workers"] == 0)
    anybody.close()
