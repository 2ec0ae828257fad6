"""The operator's page: what it shows, and what its buttons do."""

import re
import time

import httpx
import psutil
import pytest

from jobs import __version__, keys, rq_names
from tests.integration.own_redis import Own
from tests.integration.page import Person, active, plant, words
from tests.integration.processes import until
from tests.integration.stack import API, TOKEN, Stack
from tests.integration.test_http_admission import commands_of
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

RUN = "000000000000002a"
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@pytest.fixture
def person(web: Stack, sites: DemoNetwork) -> Person:
    """Who is signed in."""
    made = Person(web)
    assert made.sign_in().status_code == 200
    return made


def rows(answer: httpx.Response) -> list[str]:
    """The first cell of each row of the tables."""
    cells = re.findall('<th scope="row">(.*?)</th>', answer.text, re.DOTALL)
    return [re.sub("<[^>]*>", "", cell).strip() for cell in cells]


def test_before_the_first_run_the_page_says_so(person: Person) -> None:
    """Nothing was triggered, no worker listens, nothing is known of any site; the version is there."""
    page = person.get("/")
    for text in ("nothing has been triggered yet", "No worker is listening", "No run yet.", "Nothing is known of any"):
        assert text in words(page)
    assert f"Version {__version__}." in " ".join(page.text.split())
    assert "No run is kept." in words(person.get("/runs"))
    assert "No site is failing." in words(person.get("/sites"))
    assert "known only where the source tells due times" in words(person.get("/sites", state="stuck"))


def test_run_now_queues_a_run(web: Stack, person: Person) -> None:
    """It waits, with how far it is; it can be cancelled, and joined by nobody who presses twice."""
    answer = person.post("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    run_id = active(web)
    assert (web.run(run_id).by, web.run(run_id).mode) == ("default", "redis")
    page = person.get("/")
    assert f"queued Run {run_id} Sites done It waits for a worker." in words(page)
    assert ("Cancel" in words(page), "Run now" in words(page)) == (True, False)
    assert "1 job waits" in words(page)
    web.redis.hset(keys.run(run_id), mapping={"status": "running", "started_ms": int(time.time() * 1000) - 10_000})
    web.redis.hset(keys.run(run_id), mapping={"sites": 1500, "c:d": 990, "c:5": 10, "listed": 1})
    page = person.get("/")
    assert re.search(r"1,000 of 1,500 sites, (9\d|1[01]\d)\.\d a second, [45]\.0 s left\.", words(page))
    assert '<progress id="progress" max="1500" value="1000">' in page.text
    refused = person.post("/")
    assert (refused.status_code, "No run was started. Another cron process is" in words(refused)) == (409, True)
    web.redis.delete(keys.ACTIVE)


def test_cancel_ends_the_run_and_shows_it(web: Stack, person: Person) -> None:
    """One that waits is over at once; who presses again is told that it has ended."""
    person.post("/")
    run_id = active(web)
    answer = person.post(f"/runs/{run_id}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run_id}")
    assert web.run(run_id).status == "cancelled"
    assert "cancelled" in words(person.get(f"/runs/{run_id}"))
    again = person.post(f"/runs/{run_id}")
    assert (again.status_code, "has ended as cancelled" in words(again)) == (409, True)
    assert person.post("/runs/0123456789abcdef").status_code == 404


def test_a_refusal_is_told_where_the_button_was(web: Stack, person: Person) -> None:
    """The cooldown with what is left of it; a deactivated service with how to lift that."""
    web.trigger()
    assert "Cooldown: the next run may start in" in words(person.get("/"))
    refused = person.post("/")
    assert (refused.status_code, "No run was started. Rate limited. Try again in" in words(refused)) == (429, True)
    web.redis.delete(keys.COOLDOWN)
    web.redis.set(keys.DEACTIVATED, 0)
    assert "All Sites Cron is deactivated; `all-sites-cron activate` lifts it." in words(person.get("/"))
    refused = person.post("/")
    assert (refused.status_code, "No run was started. All Sites Cron is deactivated" in words(refused)) == (503, True)


def test_workers_and_the_queue(web: Stack, person: Person) -> None:
    """How many listen, how many of them are busy."""
    now = time.time()
    web.redis.zadd(keys.WORKERS, {"a": now * 1000, "b": now * 1000, "dead": now * 1000})
    web.redis.expire(keys.WORKERS, 60)
    for name, state in (("a", "busy"), ("b", "idle")):
        web.redis.hset(rq_names.WORKER + name, "state", state)
    page = words(person.get("/"))
    assert "Workers 2 (1 busy)" in page
    assert "No worker is listening" not in page


def test_a_failing_site_is_found_with_its_reason_and_its_runs(web: Stack, sites: DemoNetwork, person: Person) -> None:
    """On the overview, by part of its address, by its id; its own page has what the last runs keep of it."""
    sites.sites.by_id[3].behaviour = Behaviour.ERROR500
    run_id = web.trigger().json()["run_id"]
    url = sites.sites.by_id[3].url.rstrip("/")
    why = f"3 {url} http_5xx, 1 run in a row; since 20"
    assert why in words(person.get("/"))
    for text in (url[-7:].upper(), "site-03"):
        found = words(person.get("/sites", q=text))
        assert why in found
        assert "1 found; searched failing sites 1 to 1 of 1." in found
    assert "0 found;" in words(person.get("/sites", q="<b>nothing"))
    assert person.get("/sites", q="3").headers["location"] == "/sites/3"
    site = words(person.get("/sites/3"))
    assert "failing" in site
    assert "partial failed: http_5xx. answered 500" in site
    assert "Last dispatched never" in site
    assert "healthy" in words(person.get("/sites/2"))
    run = person.get(f"/runs/{run_id}")
    assert rows(run) == ["3"]
    assert f"3 {url} failed: http_5xx answered 500" in words(run)


def test_runs_are_paged_the_newest_first(web: Stack, person: Person) -> None:
    """Twenty a page, with a bar each; the overview has the last twenty."""
    plant(web, runs=45)
    first = person.get("/runs")
    assert first.text.count("<g>") == len(rows(first)) == 20
    assert "1 to 20 of 45 Next" in words(first)
    last = person.get("/runs", page=3)
    assert len(rows(last)) == 5
    assert "Previous 41 to 45 of 45" in words(last)
    assert "There are no runs this far back." in words(person.get("/runs", page=9))
    assert "The last 20 of 45 runs that are kept" in words(person.get("/"))
    assert "partial 6 1 1 0 2.5 s ci" in words(first)
    shown = words(person.get(f"/runs/{RUN}"))
    assert "redis, by ci" in shown
    assert "dispatched 4 timeout 1 http_5xx 1" in shown


def test_a_search_looks_at_a_thousand_sites_and_says_so(web: Stack, person: Person) -> None:
    """The next page goes on; without a text there are twenty a page, the longest failing first."""
    plant(web, runs=0, sites=2500)
    assert rows(person.get("/sites"))[:2] == ["1", "2"]
    assert len(rows(person.get("/sites", state="overdue", page=125))) == 20
    nothing = words(person.get("/sites", q="site-2400"))
    assert "0 found; searched failing sites 1 to 1,000 of 2,500." in nothing
    found = person.get("/sites", q="site-2400", page=3)
    assert rows(found) == ["2400"]
    assert "searched failing sites 2,001 to 2,500 of 2,500." in words(found)
    assert "state=failing&amp;q=site-2400&amp;page=2" in found.text


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/runs/0123456789abcdef", 404, "Not found No run '0123456789abcdef' is known"),
        ("/runs/%3Cb%3E:failed", 404, "Not found No run '<b>:failed' is known"),
        ("/sites/4711", 404, "Not found Nothing is known of this site"),
        ("/sites?state=well", 400, "state must be one of failing, overdue, stuck."),
        ("/runs?page=0", 400, "page must be a whole number from 1 to 1000000."),
    ],
)
def test_what_cannot_be_shown_is_told_in_words(person: Person, path: str, status: int, text: str) -> None:
    """A page with a way back, not JSON."""
    answer = person.get(path)
    assert (answer.status_code, text in words(answer)) == (status, True)
    assert '<a href="/">To the overview</a>' in answer.text


def test_what_sites_sent_is_only_text(web: Stack, person: Person) -> None:
    """Addresses, details, names: escaped, without control and bidi characters; a link only to http(s)."""
    plant(web, runs=1, by=HOSTILE, message=HOSTILE, reason=HOSTILE, mode=HOSTILE)
    failures = keys.failures("0" * 16)
    web.redis.hset(failures, "3", f'["javascript:{HOSTILE}", "failed", "http_5xx", "{HOSTILE}"]'.replace("\x1b", ""))
    web.redis.hset(keys.site("3"), "3", f"1 1 1 1 5 javascript:{HOSTILE}")
    web.redis.hset(keys.site("4"), "4", "1 1 1 1 5 https://a.example/\"onmouseover='x'")
    web.redis.zadd(keys.FAILING, {"3": 1, "4": 1})
    hostile = ("/sites?q=%ff%00%e2%80%ae", f"/sites?q={HOSTILE[:8]}", "/sign-in?next=%ff", "/runs/%ff", "/sites/%ff")
    for path in ("/", "/runs", f"/runs/{'0' * 16}", "/sites", "/sites/3", "/sites/4", *hostile):
        answer = person.get(path)
        text = answer.text
        assert answer.status_code < 500
        assert "<script>alert" not in text
        assert not {"\u202e", "\x1b"} & set(text)
        assert 'href="javascript' not in text
        assert '"onmouseover' not in text
    assert 'rel="noreferrer noopener"' in person.get("/sites/4").text


def test_every_answer_says_what_a_browser_may_do_with_it(web: Stack, person: Person) -> None:
    """The policy; nothing is kept or told on, but for the two files, whose addresses name their content."""
    page = person.get("/")
    loaded = re.findall('(?:href|src)="(/static/[^"]+)"', page.text)
    assert sorted(path.rpartition("/")[2] for path in loaded) == ["page.js", "style.css"]
    assert not re.search("<style|style=|onclick=|<script>", page.text)
    for path in ("/", "/runs", "/runs/x", "/sites", "/sites/x", "/sign-in", *loaded):
        headers = person.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("public, max-age=86400" if path in loaded else "no-store")
    assert person.get("/static/x/../../session.py").status_code == 404
    assert Person(web).get("/").headers["content-security-policy"] == POLICY


def test_a_hundred_thousand_sites_cost_what_a_few_do(web: Stack, person: Person) -> None:
    """The same commands for the same pages, and not more bytes; a thousand runs neither."""
    paths = ("/", "/runs", "/runs?page=2", f"/runs/{RUN}", "/sites", "/sites?state=overdue", "/sites/7")

    def cost(path: str) -> tuple[list[str], int]:
        sizes: list[int] = []
        seen = commands_of(web, lambda: sizes.append(len(person.get(path).content)))
        return [command for command in seen if command != "EVALSHA"], sizes[0]  # the sweep's

    plant(web, runs=45, sites=45)
    few = [cost(path) for path in paths]
    plant(web, runs=1000, sites=100_000)
    many = [cost(path) for path in paths]
    for path, (commands, size), (more, larger) in zip(paths, few, many, strict=True):
        assert (path, more) == (path, commands)
        assert larger < size * 1.1 + 500, path
    assert max(len(commands) for commands, _ in many) < 120


def test_without_a_queue_the_button_walks_in_the_web_process(stack: Stack, few: DemoNetwork) -> None:
    """The page does not ask for workers then."""
    stack.set(use_redis_queue="false")
    stack.web()
    person = Person(stack)
    page = words(person.sign_in())
    assert ("No worker" in page, "Queue not used: the web process walks" in page) == (False, True)
    assert person.post("/").status_code == 303
    until(lambda: "12 0 0 0" in words(person.get("/runs")))


def test_the_schedule_is_shown_with_its_ticks(stack: Stack, few: DemoNetwork) -> None:
    """The next one and what came of the last; where no clock is running the page says so."""
    stack.set(schedule="0 4 * * *")
    stack.web()
    person = Person(stack)
    page = words(person.sign_in())
    assert re.search(r"Schedule 0 4 \* \* \* UTC; next 20\d\d-\d\d-\d\d 04:00:00", page)
    assert "No clock is running" in page
    clock = {"time": int(time.time()), "last": "2026-01-01 04:00:00, 0 s late: queued", "missed": 2}
    stack.redis.hset(keys.CLOCK, mapping={name: str(value) for name, value in clock.items()})
    stack.redis.expire(keys.CLOCK, 60)
    page = words(person.get("/"))
    assert "Last tick 2026-01-01 04:00:00, 0 s late: queued; missed so far: 2" in page
    assert "No clock is running" not in page


def test_an_idle_web_process_that_has_shown_every_page_stays_small(stack: Stack, few: DemoNetwork) -> None:
    """Under 80 MB, the templates and a thousand runs included."""
    web = stack.web()
    plant(stack, runs=1000, sites=3000)
    person = Person(stack)
    person.sign_in()
    for path in ("/", "/runs?page=50", f"/runs/{RUN}", "/sites?q=site", "/sites/3"):
        assert person.get(path).status_code == 200
    assert psutil.Process(web.pid).memory_info().rss < 80_000_000


def test_a_missing_redis_is_a_page_that_says_so(own: Own) -> None:
    """503 with what to look at; signing in works meanwhile, and when it is back so is everything."""
    stack = own.stack
    stack.web()
    person = Person(stack)
    own.server.stop()
    signed_in = person.post("/sign-in", token=TOKEN)
    assert signed_in.status_code == 303
    for path in ("/", "/runs", "/sites"):
        answer = person.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "Redis does not answer" in words(answer)
    assert person.post("/").status_code == 503
    own.restart()
    until(lambda: person.get("/").status_code == 200)
    assert stack.client.get(f"{API}/runs").status_code == 200
