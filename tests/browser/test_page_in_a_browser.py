"""The operator's page in a real Chromium: by mouse, by keyboard, without JavaScript, on a phone, dark and light."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from jobs import keys
from tests.browser.chromium import Tab
from tests.integration.horses import late_sites, running
from tests.integration.page import active, plant
from tests.integration.stack import TOKEN, Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

pytestmark = pytest.mark.browser

PLANTED = f"{7:016x}"
PAGES = (
    "/",
    "/runs",
    f"/runs/{PLANTED}",
    "/sites",
    "/sites?state=overdue&q=site",
    "/sites/3",
    "/sites/none",
    "/sign-in",
)

OpenTab = Callable[..., Tab]


@pytest.fixture
def tab(chromium: Browser) -> Iterator[OpenTab]:
    """Opens tabs; fails the test if a page made the console, or the policy, complain."""
    tabs: list[Tab] = []

    def opened(stack: Stack, **options: Any) -> Tab:
        tabs.append(Tab(chromium, stack.port, **options))
        return tabs[-1]

    yield opened
    for each in tabs:
        each.context.close()
    assert [complaint for each in tabs for complaint in each.complaints] == []


@pytest.fixture
def walked(stack: Stack) -> Iterator[DemoNetwork]:
    """150 late sites, one of them failing, a web process and a worker."""
    with running(late_sites(150, latency_ms=200)) as network:
        network.sites.by_id[3].behaviour = Behaviour.ERROR500
        stack.use(network)
        stack.set(concurrency=10, max_retries=0, rate_limit_seconds=0)
        stack.web()
        stack.worker()
        yield network


def test_sign_in_run_watch_it_finish_find_the_failing_site(stack: Stack, walked: DemoNetwork, tab: OpenTab) -> None:
    """The bar moves without a reload; at the end the page shows the result, and the way to the site that failed."""
    here = tab(stack)
    here.open("/runs")
    here.page.get_by_label("Token").fill("wrong")
    here.page.get_by_role("button", name="Sign in").click()
    expect(here.page.get_by_role("alert")).to_have_text("The token is not valid.")
    here.complaints.clear()  # Chromium reports the 403 of the form itself
    here.sign_in(TOKEN)
    expect(here.page).to_have_title(re.compile("^Runs .* all-sites-cron$"))
    here.page.get_by_role("link", name="Overview").click()
    here.page.get_by_role("button", name="Run now").click()
    bar = here.page.get_by_role("progressbar", name="Sites done")
    here.page.evaluate("window.before = 'no reload'")
    until_value(here, "el => el.value > 10 && el.value < 150 && el.max === 150")
    assert here.page.evaluate("window.before") == "no reload"
    expect(here.page.locator("[data-text]")).to_have_text(
        re.compile(r"\d+ of 150 sites, \d+\.\d a second, \d+ s left\.")
    )
    expect(here.page.locator("[role=status]")).to_have_text(re.compile(r"\d+ of 150 sites"))
    here.page.evaluate("location.hash = 'main'")  # as the skip link leaves it
    expect(bar).to_have_count(0, timeout=20_000)
    expect(here.page.get_by_text("No run is under way. The last one: partial")).to_be_visible()
    assert walked.sites.calls == 150
    here.page.get_by_role("link", name="1 failing").click()
    here.page.get_by_label("Part of an address").fill(walked.sites.by_id[3].url.rstrip("/").removeprefix("http"))
    here.page.get_by_role("button", name="Search").click()
    expect(here.page.get_by_text("1 found;")).to_be_visible()
    here.page.get_by_role("link", name="3", exact=True).click()
    expect(here.page.get_by_text("failed: http_5xx. answered 500")).to_be_visible()


def until_value(here: Tab, condition: str) -> None:
    """Wait until the progress bar is as it should be."""
    here.page.wait_for_function(
        f"() => {{ const el = document.querySelector('progress'); return el && ({condition})(el) }}"
    )


def test_cancel(stack: Stack, walked: DemoNetwork, tab: OpenTab) -> None:
    """The run ends without having called every site."""
    here = tab(stack)
    here.open("/")
    here.sign_in(TOKEN)
    here.page.get_by_role("button", name="Run now").click()
    until_value(here, "el => el.value > 10")
    here.page.get_by_role("button", name="Cancel").click()
    expect(here.page.locator(".badge", has_text="cancelled")).to_be_visible(timeout=15_000)
    assert walked.sites.calls < 150


def test_where_the_stream_is_refused_the_page_polls(web: Stack, sites: DemoNetwork, tab: OpenTab) -> None:
    """As when too many watch; at the end it shows what came of it."""
    plant(web, runs=8)
    web.redis.hset(keys.run(PLANTED), mapping={"status": "running", "c:d": 2})
    web.redis.hdel(keys.run(PLANTED), "ended_ms")
    here = tab(web)
    here.page.route("**/events", lambda route: route.fulfill(status=503))
    here.open(f"/runs/{PLANTED}")
    here.sign_in(TOKEN)
    web.redis.hset(keys.run(PLANTED), "c:d", 3)
    expect(here.page.locator("[data-text]")).to_contain_text("5 of 6 sites")
    web.redis.hset(keys.run(PLANTED), mapping={"status": "partial", "ended_ms": 1})
    expect(here.page.locator("progress")).to_have_count(0)
    here.complaints[:] = [text for text in here.complaints if "503" not in text]


def press_until_focused(here: Tab, name: str, most: int = 20) -> None:
    """Tab until the element of that text or name has the focus, visibly."""
    for _ in range(most):
        here.page.keyboard.press("Tab")
        focused = "(document.activeElement.innerText || document.activeElement.name)"
        if here.page.evaluate(focused) == name:
            assert here.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    pytest.fail(f"{name} is not reached by keyboard")


def test_by_keyboard_alone(web: Stack, sites: DemoNetwork, tab: OpenTab) -> None:
    """Sign in, run and sign out; what has the focus is seen, and the first stop skips to the content."""
    here = tab(web)
    here.open("/")
    here.page.keyboard.type(TOKEN)  # the field has the focus
    here.page.keyboard.press("Enter")
    here.page.get_by_role("button", name="Sign out").wait_for()
    press_until_focused(here, "To the content", most=1)
    press_until_focused(here, "Run now")
    here.page.keyboard.press("Enter")
    here.page.get_by_role("button", name="Cancel").wait_for()
    assert web.redis.get(keys.ACTIVE)
    web.redis.delete(keys.ACTIVE)
    press_until_focused(here, "Sign out")
    here.page.keyboard.press("Space")
    here.page.get_by_label("Token").wait_for()


def test_without_javascript(web: Stack, sites: DemoNetwork, tab: OpenTab) -> None:
    """Everything works; the progress is brought up to date by a link."""
    here = tab(web, java_script_enabled=False)
    here.open("/")
    here.sign_in(TOKEN)
    here.page.get_by_role("button", name="Run now").click()
    run_id = active(web)
    web.redis.hset(keys.run(run_id), mapping={"status": "running", "sites": 6, "c:d": 4, "listed": 1})
    here.page.get_by_role("link", name="Refresh").click()
    expect(here.page.get_by_text("4 of 6 sites")).to_be_visible()
    web.redis.delete(keys.ACTIVE)


@pytest.mark.parametrize(("scheme", "width"), [("dark", 360), ("light", 360), ("dark", 1200)])
def test_axe_finds_nothing_serious(web: Stack, sites: DemoNetwork, tab: OpenTab, scheme: str, width: int) -> None:
    """On each page, with an active run and without; nothing is wider than the screen."""
    plant(web, runs=45, sites=45)
    web.redis.hset(keys.run(PLANTED), mapping={"status": "running", "c:d": 4})
    web.redis.hdel(keys.run(PLANTED), "ended_ms")
    web.redis.set(keys.ACTIVE, PLANTED, ex=60)
    here = tab(web, color_scheme=scheme, viewport={"width": width, "height": 800})
    here.open("/")
    found = {"/sign-in": here.findings()}
    here.sign_in(TOKEN)
    for path in PAGES:
        here.open(path)
        found[path] = here.findings()
        assert here.page.evaluate("document.documentElement.scrollWidth") <= width, path
    here.complaints[:] = [text for text in here.complaints if "/sites/none" not in text]  # Chromium reports a 404
    assert {path: findings for path, findings in found.items() if findings} == {}
