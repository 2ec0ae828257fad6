"""Secrets are planted wherever one can be, everything that can break is broken, and no secret is found anywhere."""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event

import httpx
import psutil
import pytest
from redis import Redis

from service.embedded import EmbeddedValkey
from tests.integration.filter_rig import write
from tests.integration.horses import late_sites, running
from tests.integration.odd_servers import OddServer, serving
from tests.integration.page import Person
from tests.integration.processes import until
from tests.integration.stack import API, Stack, free_port
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

RUN, READ, NAMED, FEED, REDIS, BASIC, ENTRY, QUERY, MYSQL, WRONG, DEEP = SECRETS = [
    f"planted-{what}-secret"
    for what in ("run", "read", "named", "feed", "redis", "basic", "entry", "query", "mysql", "wrong", "deep")
]
LOGIN = base64.b64encode(f"cron:{BASIC}".encode()).decode()
FILTERS = f"""
def request_args(args, site):
    args["auth"] = ("cron", {BASIC!r})
    return args

add_filter("all_sites_cron_request_args", request_args)
"""


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A server of its own that asks for the planted password; over TCP, as a deployment has it."""
    port = free_port()
    with EmbeddedValkey.start(tmp_path / "v", port) as server:
        with Redis.from_url(server.url) as redis:
            redis.config_set("requirepass", REDIS)
        yield f"redis://:{REDIS}@127.0.0.1:{port}/0"


@pytest.fixture
def network() -> Iterator[DemoNetwork]:
    """60 sites, each 50 ms late; some fail, each in its own way."""
    made = late_sites(60, latency_ms=50)
    failing = (Behaviour.ERROR500, Behaviour.REDIRECT, Behaviour.RESET, Behaviour.GARBAGE, Behaviour.NOT_FOUND)
    for site, behaviour in zip(made.sites.all[1:], failing, strict=False):
        site.behaviour, site.redirect_to = behaviour, f"http://u:{DEEP}@127.0.0.9/?token={DEEP}"
    with running(made) as network:
        yield network


@pytest.fixture
def login() -> Iterator[OddServer]:
    """A site that refuses, and gives back the login it was sent wherever it can."""

    def answer(peer: socket.socket, head: str) -> None:
        status = f"401 {LOGIN}\r\nLocation: /{LOGIN}\r\nWWW-Authenticate: Basic realm={LOGIN}"
        peer.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(head)}\r\n\r\n{head}".encode())

    with serving(answer) as server:
        yield server


@pytest.fixture
def broken() -> Event:
    """Set, the feed refuses, and gives back what it was sent."""
    return Event()


@pytest.fixture
def feed(network: DemoNetwork, login: OddServer, broken: Event) -> Iterator[OddServer]:
    """The network's feed, with bad entries that have secrets."""
    urls = [login.url, *(site.url for site in network.sites.all)]
    urls += [f"http://u:{ENTRY}@a.example/", f"http://b.example/?key={ENTRY}", f"http://u:{ENTRY}[@c.example"]
    sites = [{"id": number, "url": url} for number, url in enumerate(urls, 1)]

    def answer(peer: socket.socket, head: str) -> None:
        ok = not broken.is_set() and f"Bearer {FEED}" in head and QUERY in head
        body = json.dumps({"version": 1, "sites": sites, "next": None} if ok else {"you sent": head}).encode()
        status = "200 OK" if ok else "403 Forbidden"
        peer.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    with serving(answer) as server:
        yield server


class Haystack:
    """Everything a person could read, by where it was."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.texts: dict[str, str] = {}

    def ask(self, path: str, bearer: str = RUN, /, **query: str) -> httpx.Response:
        """One answer of the web process, with its headers."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        answer = httpx.get(f"http://127.0.0.1:{self.stack.port}{path}", params=query or None, headers=headers)
        self.texts[f"GET {path} {query} {len(self.texts)}"] = f"{answer.headers}{answer.text}"
        return answer

    def command(self, *arguments: str, **environ: str) -> None:
        """What a command prints."""
        done = self.stack.command(*arguments, **environ)
        self.texts[f"{arguments} {environ} {len(self.texts)}"] = done.stdout + done.stderr

    def processes(self) -> int:
        """Command lines and titles of all processes that were started; how many."""
        started = [psutil.Process(process.pid) for process in self.stack.processes]
        every = [*started, *(child for process in started for child in process.children(recursive=True))]
        for process in every:
            with suppress(psutil.NoSuchProcess):
                self.texts[f"process {process.pid} {len(self.texts)}"] = f"{process.name()} {process.cmdline()}"
        return len(every)

    def redis(self) -> None:
        """Every key with its value."""
        read = {
            "string": lambda redis, key: redis.get(key),
            "hash": lambda redis, key: redis.hgetall(key),
            "list": lambda redis, key: redis.lrange(key, 0, -1),
            "set": lambda redis, key: redis.smembers(key),
            "zset": lambda redis, key: redis.zrange(key, 0, -1),
            "stream": lambda redis, key: redis.xrange(key),
        }
        for key in self.stack.redis.scan_iter():
            kind = str(self.stack.redis.type(key), "ascii")  # type: ignore[arg-type]
            if kind != "none":
                self.texts[f"key {key!r} {len(self.texts)}"] = repr(read[kind](self.stack.redis, key))

    def found(self) -> list[str]:
        """The places with a secret."""
        for path in self.stack.folder.glob("*.log"):
            self.texts[path.name] = path.read_text(errors="replace")
        needles = [*SECRETS, *(base64.b64encode(each.encode()).decode()[:20] for each in SECRETS), LOGIN]
        return [f"{each}: {where}" for where, text in self.texts.items() for each in needles if each in text]


REGISTRIES = ("queued", "started", "finished", "failed", "deferred", "scheduled")
PAGES = ("livez", "readyz", "metrics", "openapi.json", "", "rq", f"{API}/sites/1", f"{API}/sites?state=failing")


def dashboard(stack: Stack, hay: Haystack) -> None:
    """Read the pages of rq-dashboard, and what it has of each job."""
    paths = [f"view/{view}" for view in ("queues", "workers", "jobs")]
    paths += [f"data/{name}.json" for name in ("queues", "workers")]
    paths += [f"data/jobs/all-sites-cron/{registry}/50/asc/1.json" for registry in REGISTRIES]
    jobs = [key.decode().removeprefix("rq:job:") for key in stack.redis.scan_iter("rq:job:*")]
    paths += [form for job in jobs for form in (f"data/job/{job}.json", f"view/job/{job}")]
    texts = [stack.client.get(f"/rq/0/{path}", headers={"Authorization": f"Bearer {READ}"}).text for path in paths]
    hay.texts |= zip((f"dashboard {path}" for path in paths), texts, strict=True)
    assert "walk" in "".join(texts)


def break_redis(stack: Stack, hay: Haystack) -> None:
    """Its password changes and every connection is cut; then all is as it was."""
    stack.redis.config_set("requirepass", "another")
    stack.redis.client_kill_filter(_type="normal", skipme=True)
    until(lambda: hay.ask("/readyz").status_code == 503)
    until(lambda: "could not connect to Redis" in stack.log("worker") or "cannot be asked" in stack.log("worker"), 20)
    assert hay.ask(f"{API}/run", defer="1").status_code == 503
    hay.command("run", "--ga")
    hay.command("check")
    stack.redis.config_set("requirepass", REDIS)
    until(lambda: hay.ask("/readyz").status_code == 200, 20)


def test_no_secret_is_found_anywhere(
    stack: Stack, network: DemoNetwork, feed: OddServer, login: OddServer, broken: Event
) -> None:
    """Logs at debug level, answers, the command line, Redis, rq-dashboard, titles and command lines of processes."""
    stack.set(auth_token=RUN, auth_tokens=f"ci:read:{READ},bot:run:{NAMED}", feed_token=FEED, log_level="debug")
    stack.set(sites=f"{feed.url}/feed?key={QUERY}", rate_limit_seconds=0, request_timeout=2, concurrency=8)
    write(stack, FILTERS)
    stack.environ["PYTHONPATH"] += f":{Path(__file__).parents[2]}"
    stack.set(filters="mine")
    hay = Haystack(stack)
    stack.web()
    stack.worker()
    location = hay.ask(f"{API}/run", "", defer="1", token=NAMED).headers["Location"]
    until(lambda: hay.processes() >= 3)  # web, worker and its horse
    until(lambda: network.sites.calls > 5)
    hay.redis()
    run = stack.ended(location.rpartition("/")[2])
    assert (run.status, run.bad_entries, run.total("failed") > 0) == ("partial", 3, True)
    assert f"Basic {LOGIN}" in login.heads[0]
    hay.ask(location, READ)
    for page in PAGES:
        hay.ask(f"/{page.lstrip('/')}", READ)
    person = Person(stack)
    for token in (WRONG, RUN):
        answers = [person.post("/sign-in", token=token), *(person.get(path) for path in ("/", "/runs", "/sites"))]
        hay.texts |= {f"page {token} {n}": f"{a.status_code}{a.headers}{a.text}" for n, a in enumerate(answers)}
    assert "Run now" in hay.texts[f"page {RUN} 1"]
    hay.ask(f"{API}/run", token=RUN, ga="1")
    hay.ask(f"{API}/run", WRONG)
    hay.ask(f"{API}/run", "", token=WRONG, ga="1")
    hay.ask(f"{API}/run", "", token=NAMED, defer=NAMED)
    hay.ask(f"/{WRONG}/wp-json/all-sites-cron/v1/nothing?token={WRONG}")
    broken.set()
    assert hay.ask(f"{API}/run").status_code == 502
    for arguments in (["config"], ["check"], ["status"], ["sites", "--check"], ["run", "--ga"], ["trigger", "1"]):
        hay.command(*arguments)
    hay.command("run", "--service", f"http://u:{WRONG}@127.0.0.1:{stack.port}")
    hay.command("run", "--service", f"http://127.0.0.1:{stack.port}", "--ga")
    for url in (f"mysql://u:{MYSQL}@127.0.0.1:1/wp", f"mysql://u:{MYSQL}/x@127.0.0.1:1/wp", f"https://u:{MYSQL}@h/"):
        hay.command("check", ALL_SITES_CRON_SITES=url)
    for arguments in (["config"], ["run"], ["sites", "--check"]):
        hay.command(*arguments, ALL_SITES_CRON_SITES=f"mysql://u:{MYSQL}@127.0.0.1:1/wp")
    for url in (f"redis://:{REDIS}/x@127.0.0.1:1", f"redis://:{REDIS}@127.0.0.1:1/0", f"rediss://:{REDIS}@127.0.0.1:1"):
        hay.command("check", REDIS_URL=url)
    break_redis(stack, hay)
    hay.redis()
    hay.processes()
    dashboard(stack, hay)
    hay.processes()
    for process in stack.processes:
        process.terminate()
        process.wait(20)
    assert hay.found() == []
    assert stack.log("web")
    assert stack.log("worker")
