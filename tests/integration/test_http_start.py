"""How the web process starts: what it refuses to start without, what it weighs (CONTRACT sections 2, 3)."""

import asyncio
import os
import pty
import threading
from contextlib import suppress

import httpx
import psutil
import pytest

from jobs import keys
from jobs.world import build
from service.app import create_app
from tests.integration.processes import until
from tests.integration.stack import API, ROOT, TOKEN, Stack, environ_of
from wordpress.demo_network import DemoNetwork


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("ALL_SITES_CRON_AUTH_TOKEN", None, ["ALL_SITES_CRON_AUTH_TOKEN", "ALL_SITES_CRON_REQUIRE_AUTH=false"]),
        ("ALL_SITES_CRON_REQUIRE_AUTH", "maybe", ["ALL_SITES_CRON_REQUIRE_AUTH='maybe'", "true"]),
        ("ALL_SITES_CRON_AUTH_TOKENS", "ci:write:tell-nobody", ["ALL_SITES_CRON_AUTH_TOKENS", "name:scope:token"]),
        ("ALL_SITES_CRON_TRUSTED_PROXIES", "10.0.0.0/33", ["ALL_SITES_CRON_TRUSTED_PROXIES"]),
        ("REDIS_URL", None, ["REDIS_URL is not set", "all-sites-cron up"]),
        ("REDIS_URL", "http://user:tell-nobody@127.0.0.1", ["REDIS_URL", "redis://"]),
    ],
)
def test_it_refuses_to_start(stack: Stack, variable: str, value: str | None, names: list[str]) -> None:
    """A wrong or missing setting ends it with a text that names the setting: no traceback, no secret, exit code 1."""
    if value is None:
        del stack.environ[variable]
    else:
        stack.environ[variable] = value
    assert stack.start("web").wait(20) == 1
    said = stack.log("web")
    for name in names:
        assert name in said
    assert "Traceback" not in said
    assert "tell-nobody" not in said


@pytest.mark.parametrize("auto", ["auto", "true"])
def test_require_auth_auto_means_yes(stack: Stack, auto: str) -> None:
    """REQUIRE_AUTH=auto asks for a token, and without one configured nothing starts."""
    del stack.environ["ALL_SITES_CRON_AUTH_TOKEN"]
    stack.set(require_auth=auto)
    assert stack.start("web").wait(20) == 1


def test_a_read_token_alone_is_enough_to_start(stack: Stack, network: DemoNetwork) -> None:
    """AUTH_TOKENS without AUTH_TOKEN is a configuration."""
    del stack.environ["ALL_SITES_CRON_AUTH_TOKEN"]
    stack.set(auth_tokens=f"only:read:{TOKEN}")
    stack.web()
    assert stack.trigger().status_code == 403
    assert stack.client.get(f"{API}/runs/0123456789abcdef").status_code == 404


def test_without_authentication(stack: Stack, network: DemoNetwork) -> None:
    """REQUIRE_AUTH=false lets everybody in, whatever token they send, and says so in the log."""
    del stack.environ["ALL_SITES_CRON_AUTH_TOKEN"]
    stack.set(require_auth="false")
    stack.web()
    answer = httpx.post(f"{stack.client.base_url}{API}/run")
    assert answer.status_code == 200
    assert stack.run(answer.json()["run_id"]).by == "anonymous"
    assert stack.trigger().status_code == 429
    assert "ALL_SITES_CRON_REQUIRE_AUTH=false" in stack.log("web")


@pytest.mark.parametrize(("query", "text"), [("", False), ("?ga=1", True)])
def test_an_app_without_a_token_fails_closed(stack: Stack, query: str, text: bool) -> None:
    """However it came to run: authentication required and none configured is 500, also for a call with a token."""
    del stack.environ["ALL_SITES_CRON_AUTH_TOKEN"]
    world = build(environ_of(stack))

    async def call() -> httpx.Response:
        app = create_app(world)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            answer = await client.post(f"{API}/run{query}", headers={"Authorization": f"Bearer {TOKEN}"})
        await app.state.web.redis.aclose()
        return answer

    answer = asyncio.run(call())
    world.redis.close()
    assert answer.status_code == 500
    if text:
        assert answer.text.startswith("::error::")
    else:
        assert answer.json()["code"] == "all_sites_cron_auth_not_configured"
        assert answer.json()["data"] == {"status": 500}


def test_a_traceback_on_a_terminal_shows_no_token(stack: Stack, network: DemoNetwork) -> None:
    """The log of a person who watches it has the trace of an error without the values in it."""
    terminal, end = pty.openpty()
    seen: list[bytes] = []

    def watch() -> None:
        with suppress(OSError):  # the other end is closed
            while chunk := os.read(terminal, 65536):
                seen.append(chunk)

    watching = threading.Thread(target=watch)
    watching.start()
    procfile = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    try:
        web = stack.start("web", command=f"{procfile['web']} 2>{os.ttyname(end)}")
        until(lambda: b"Uvicorn running" in b"".join(seen), 20)
        run_id = stack.trigger().json()["run_id"]
        stack.redis.hset(keys.run(run_id), "queued_ms", "broken")
        assert stack.client.get(f"{API}/runs/{run_id}", params={"token": TOKEN}).status_code == 500
        until(lambda: b"ValueError" in b"".join(seen))
        web.terminate()
        web.wait(10)
    finally:
        os.close(end)
        watching.join(10)
        os.close(terminal)
    assert TOKEN.encode() not in b"".join(seen)


def test_an_idle_web_process_is_small(stack: Stack, network: DemoNetwork) -> None:
    """Under 80 MB of resident memory, when it has started and when a run has ended."""
    web = stack.web()
    assert psutil.Process(web.pid).memory_info().rss < 80_000_000
    assert stack.trigger().json()["count"] == 120
    assert psutil.Process(web.pid).memory_info().rss < 80_000_000
