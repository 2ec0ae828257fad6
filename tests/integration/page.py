"""A person at the operator's page, without a browser: what they see, and the forms they send."""

import asyncio
import json
import re
from collections.abc import Mapping
from html import unescape
from typing import Any
from urllib.parse import urlencode

import httpx

from jobs import keys
from jobs.world import build
from service.app import create_app
from tests.integration.stack import TOKEN, Stack, environ_of


class Person:
    """A browser that keeps cookies and sends no token; `form` is what the last page's forms send along."""

    def __init__(self, stack: Stack) -> None:
        self.origin = f"http://127.0.0.1:{stack.port}"
        self.cookies = httpx.Cookies()
        self.form: dict[str, str] = {}

    def send(
        self, method: str, path: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One answer."""
        with httpx.Client(base_url=self.origin, cookies=self.cookies, timeout=30) as client:
            answer = client.request(method, path, data=form, headers=headers)
            self.cookies = client.cookies
        if found := re.search('name="csrf" value="([0-9a-f]+)"', answer.text):
            self.form = {"csrf": found[1]}
        return answer

    def get(self, path: str, **query: Any) -> httpx.Response:
        """Open a page."""
        return self.send("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, **values: str) -> httpx.Response:
        """Send a form of the page that was seen last."""
        return self.send("POST", path, self.form | values)

    def sign_in(self, token: str = TOKEN) -> httpx.Response:
        """Show a token; where it leads is opened."""
        answer = self.post("/sign-in", token=token)
        return self.get(answer.headers["location"]) if answer.status_code == 303 else answer


class Here:
    """The application in this process, with other settings and any peer; what needs Redis does not work."""

    def __init__(self, stack: Stack, peer: str = "127.0.0.1", **settings: object) -> None:
        app = create_app(build(environ_of(stack, **settings)))
        self.transport = httpx.ASGITransport(app, client=(peer, 50000))

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, **form: str) -> httpx.Response:
        """One answer, to one request or form."""

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.transport, base_url="http://here") as client:
                return await client.request(method, path, headers=headers, data=form or None)

        return asyncio.run(send())


def plant(stack: Stack, runs: int, sites: int = 0, **fields: str | int) -> None:
    """Put ended runs into Redis, 60 s apart, each with a failing site; so many sites are failing and overdue.

    As the scripts write them (jobs/lua): the newest run is number 0. `fields`: more of each run's record.
    """
    now, pipeline = stack.redis.time()[0], stack.redis.pipeline(transaction=False)
    for n in range(runs):
        run_id, ms = f"{n:016x}", (now - 60 * n - 60) * 1000
        record = {"status": "partial", "mode": "redis", "by": "ci", "queued_ms": ms, "started_ms": ms, "sites": 6}
        record |= {"ended_ms": ms + 2500, "listed": 1, "c:d": 4, "c:t": 1, "c:5": 1, **fields}
        pipeline.hset(keys.run(run_id), mapping={name: str(value) for name, value in record.items()})
        pipeline.hset(keys.failures(run_id), "3", json.dumps([f"http://a.example/{n}", "failed", "http_5xx", "500"]))
        pipeline.zadd(keys.RUNS, {run_id: ms})
        for key in (keys.run(run_id), keys.failures(run_id), keys.RUNS):
            pipeline.expire(key, 600)
    since = f"{now - 86400:x}"
    for n in range(1, sites + 1):
        pipeline.hset(keys.site(str(n)), str(n), f"{since} 0 3 {since} 5 https://site-{n}.example/blog")
        pipeline.zadd(keys.FAILING, {str(n): now - 86400 + n / 1000})
        pipeline.zadd(keys.DUE, {str(n): now - 86400 + n / 1000})
    pipeline.execute()


def active(stack: Stack) -> str:
    """The id of the active run, or nothing."""
    return str(stack.redis.get(keys.ACTIVE) or b"", "ascii")  # type: ignore[arg-type]


def words(answer: httpx.Response) -> str:
    """What a person reads: the text without tags, its white space made one space each."""
    body = answer.text.partition("<main")[2].partition("</main>")[0].partition(">")[2]
    return " ".join(unescape(re.sub("<[^>]*>", " ", body)).split())
