"""rq-dashboard at /rq in a real Chromium: it works under its policy, and what a job holds does not run."""

import json
import zlib
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect
from rq.registry import FailedJobRegistry

from jobs import rq_names
from jobs.admission import rq_now
from tests.browser.test_page_in_a_browser import OpenTab, tab
from tests.integration.processes import until
from tests.integration.stack import TOKEN, Stack

__all__ = ["tab"]

pytestmark = pytest.mark.browser

QUEUE = "all-sites-cron"
RUNS = "document.title='it ran'"
HOSTILE = (
    f"<script>{RUNS}</script>",
    f'<img src="data:," onerror="{RUNS}">',
    f'"><svg onload={RUNS}>',
    "<iframe srcdoc='<script>parent.document.title=1</script>'></iframe>",
)


def plant(stack: Stack, job: str, text: str, queue: str = QUEUE) -> None:
    """A failed job with this text in everything that is shown of it, as whoever can write to Redis writes it."""
    written: dict[Any, Any] = {"created_at": rq_now(), "enqueued_at": rq_now(), "ended_at": rq_now(), "origin": queue}
    written |= {"status": "failed", "description": text, "meta": json.dumps({"text": text})}
    stack.redis.hset(rq_names.JOB + job, mapping={**written, "data": json.dumps([text, None, [text], {}])})
    why = b64encode(zlib.compress(text.encode()))
    stack.redis.xadd(f"rq:results:{job}", {"type": 2, "created_at": 1, "exc_string": why})
    stack.redis.zadd(FailedJobRegistry(queue, connection=stack.redis).key, {job: 4_000_000_000})
    stack.redis.sadd(rq_names.QUEUES, rq_names.queue(queue))


def test_it_works_under_its_policy(stack: Stack, tab: OpenTab) -> None:
    """Queues, jobs, a job and workers are seen; a job is deleted by its button where that is set."""
    stack.set(dashboard_write=True)
    stack.web()
    plant(stack, "a-job", "Walk run 7: 3 of 9 sites")
    here = tab(stack)
    here.open("/rq")
    here.show(TOKEN)
    expect(here.page.get_by_role("cell", name=QUEUE)).to_be_visible()
    here.page.get_by_role("link", name="Workers").click()
    expect(here.page.get_by_text("No workers.")).to_be_visible()
    here.open(f"/rq/0/view/jobs/{QUEUE}/failed/8/asc/1")
    expect(here.page.get_by_text("Walk run 7: 3 of 9 sites").first).to_be_visible()
    here.page.get_by_role("link", name="a-job").click()
    expect(here.page.get_by_role("button", name="Requeue")).to_be_visible()
    here.page.get_by_role("button", name="Delete").click()
    here.page.get_by_role("button", name="Yes").click()
    until(lambda: not stack.redis.exists(f"{rq_names.JOB}a-job"))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_job_holds_does_not_run(web: Stack, tab: OpenTab, text: str) -> None:
    """In its description, call, metadata, and traceback, and in the name of its queue: it is text.

    RQ reads no job whose id is more than letters and digits.
    """
    plant(web, "a-job", text)
    plant(web, "another", text, queue=text)
    here = tab(web)
    here.open("/rq")
    here.show(TOKEN)
    shown = text.replace("<", "\u2039")
    expect(here.page.get_by_role("cell", name=shown)).to_be_visible()
    here.open(f"/rq/0/view/jobs/{QUEUE}/failed/8/asc/1")
    expect(here.page.get_by_text(shown).first).to_be_visible()
    here.open("/rq/0/view/job/a-job")
    expect(here.page.locator(".description-scroll").get_by_text(shown)).to_be_visible()
    assert here.page.title() == "RQ dashboard"


OUT = """');}});document.title="it ran";$(1).on("x",function(){if(1){('"""  # of the string and the functions around it


@pytest.mark.parametrize("name", [OUT, f"\\{OUT}", "\"><svg onload=document.title='it.ran'>"])
def test_what_a_link_holds_does_not_run(web: Stack, tab: OpenTab, name: str) -> None:
    """rq-dashboard writes the queue's name of the address into its script, unescaped."""
    here = tab(web)
    here.open("/")
    here.sign_in(TOKEN)
    here.open(f"/rq/0/view/jobs/{quote(name, safe='')}/queued/8/asc/1")
    expect(here.page.get_by_title("Queue name")).to_have_value(name)
    assert here.page.title() == "RQ dashboard"
    here.complaints[:] = [text for text in here.complaints if "SyntaxError" not in text]


@pytest.mark.parametrize("text", HOSTILE)
def test_the_policy_alone_would_do(web: Stack, tab: OpenTab, text: str) -> None:
    """Markup that did arrive, put into the page by jQuery as the templates are, does not run."""
    here = tab(web)
    here.open("/rq")
    here.show(TOKEN)
    with here.page.expect_console_message(lambda told: told.text.startswith("CSP: ")):
        here.page.evaluate("text => $('body').append(text)", text)
    assert here.page.title() == "RQ dashboard"
    assert {each.rpartition("CSP: script-src-")[2] for each in here.complaints if "CSP: " in each} <= {"elem", "attr"}
    here.complaints.clear()
