"""`run --dry-run`, and the step summary of `run --ga` (CONTRACT section 8)."""

import html
import json

import pytest

from jobs import keys
from tests.integration.stack import Stack
from tests.integration.test_command_line import body, fail_some
from wordpress.demo_network import DemoNetwork, running
from wordpress.demo_sites import DemoSite


def test_dry_run_says_who_would_be_called_and_who_not_and_why(stack: Stack) -> None:
    """Sites left out are counted by their flags; nothing is called, locked or kept."""
    sites = [DemoSite(id=number, host="127.0.0.1", path=f"/s{number}/") for number in range(1, 4)]
    with running(DemoNetwork(sites, ["127.0.0.1"])) as network:
        good = [f"{site.id},{site.url},1,0,0,0" for site in sites]
        bad = ["4,http://10.1.2.3/,1,0,0,0", "5,http://nowhere.invalid/,1,0,0,0", "6,ftp://x,1,0,0,0"]
        out = ["7,http://a.invalid/,0,1,0,0", "8,http://b.invalid/,1,1,0,0", "9,http://c.invalid/,1,0,1,0"]
        out += [f"{number},http://d{number}.invalid/,1,0,0,1" for number in (10, 11)]
        path = stack.folder / "some.csv"
        path.write_text("\n".join(["blog_id,url,public,archived,deleted,spam", *good, *bad, *out]))
        stack.set(sites=path)
        done = stack.command("run", "--dry-run", "--ga")
        assert done.returncode == 0
        lines = [line.split("\t") for line in done.stdout.splitlines()]
        assert lines[:3] == [[str(site.id), site.url] for site in sites]
        assert [line[:2] for line in lines[3:]] == [["4", "http://10.1.2.3"], ["5", "http://nowhere.invalid"]]
        assert "ALL_SITES_CRON_ALLOWED_NETWORKS=10.1.2.3/32" in lines[3][2]
        assert "nowhere.invalid cannot be resolved" in lines[4][2]
        figures = (
            "3 sites would be called; 2 cannot be called, 0 have nothing due, 1 bad entries, 1 not public, "
            "1 archived, 1 deleted, 2 spam"
        )
        assert done.stderr.endswith(f"{figures}\n")
        assert "some.csv line 7" in done.stderr
        assert network.stats()["calls"] == 0
    assert list(stack.redis.scan_iter("*")) == []


def test_dry_run_keeps_to_the_cap_and_to_where_the_next_run_begins(stack: Stack, network: DemoNetwork) -> None:
    """Its lines are the sites that the run then really calls, each time, and over the end of the list."""
    stack.set(number_of_sites=50, rate_limit_seconds=0)
    texts = []
    for first, last in ((1, 50), (51, 100), (101, 120), (1, 50)):
        dry = stack.command("run", "--dry-run")
        assert [int(line.split("\t")[0]) for line in dry.stdout.splitlines()] == list(range(first, last + 1))
        texts.append(dry.stderr.rpartition("NUMBER_OF_SITES=50: ")[2].strip())
        network.arm()
        assert body(stack.command("run"))["count"] == last - first + 1
        assert [site.id for site in network.sites.all if site.calls] == list(range(first, last + 1))
    assert texts[:3] == [
        "begins at the start, the next run behind 50",
        "begins behind 50, the next run behind 100",
        "begins behind 100, the next run at the start",
    ]


def test_dry_run_does_not_mind_a_run_or_a_cooldown_and_needs_no_redis_without_a_cap(
    stack: Stack, network: DemoNetwork
) -> None:
    """It admits nothing, so nothing can refuse it."""
    assert stack.command("run").returncode == 0
    stack.redis.set(keys.DEACTIVATED, 0)
    before = {key: stack.redis.dump(key) for key in stack.redis.scan_iter("*")}
    done = stack.command("run", "--dry-run", "--defer", "--wait")
    assert (done.returncode, done.stdout.count("\n")) == (0, 120)
    assert {key: stack.redis.dump(key) for key in stack.redis.scan_iter("*")} == before
    assert stack.command("run", "--dry-run", REDIS_URL="redis://127.0.0.1:1").returncode == 0
    assert network.stats()["calls"] == 120


@pytest.mark.parametrize(
    ("options", "sites", "code"),
    [((), "/nowhere.csv", 69), ((), "", 2), (("--service", "http://127.0.0.1:1"), "/nowhere.csv", 2)],
)
def test_dry_run_without_a_list_or_at_a_service_is_an_error(
    stack: Stack, options: tuple[str, ...], sites: str, code: int
) -> None:
    """It cannot say who would be called."""
    done = stack.command("run", "--dry-run", *options, ALL_SITES_CRON_SITES=sites)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["here", "service", "wait"])
def test_ga_appends_a_summary_with_figures_and_failing_sites(stack: Stack, network: DemoNetwork, where: str) -> None:
    """What was in the file stays; the other options say the same of the same run."""
    fail_some(network)
    options: tuple[str, ...] = ()
    stack.set(max_retries=0)
    if where != "here":
        stack.web()
        options = ("--service", str(stack.client.base_url))
    if where == "wait":
        stack.worker()
        options += ("--defer", "--wait")
    file = stack.folder / "summary.md"
    file.write_text("before\n")
    done = stack.command("run", "--ga", *options, GITHUB_STEP_SUMMARY=str(file))
    assert done.returncode == 1
    text = file.read_text()
    assert text.startswith("before\n### WordPress cron: partial\n")
    assert "| sites | 120 |" in text
    assert "| dispatched | 116 |" in text
    assert "| http&#95;5xx | 4 |" in text
    for site in network.sites.all[:4]:
        assert f"| {site.url} | failed | http_5xx | " in html.unescape(text)


def test_a_refusal_is_in_the_summary_and_without_ga_nothing_is(stack: Stack, network: DemoNetwork) -> None:
    """JSON is for other programs, and the file is the workflow's."""
    file = stack.folder / "summary.md"
    done = stack.command("run", GITHUB_STEP_SUMMARY=str(file))
    assert (json.loads(done.stdout)["count"], file.exists()) == (120, False)
    assert stack.command("run", "--ga", GITHUB_STEP_SUMMARY=str(file)).returncode == 75
    assert file.read_text().startswith("### WordPress cron: rate&#95;limited\n\nRate limited&#46; Try again in")
    missing = stack.command("run", "--ga", GITHUB_STEP_SUMMARY="/nowhere/file")
    assert (missing.returncode, missing.stdout[:7]) == (75, "::error")
    assert "GITHUB_STEP_SUMMARY cannot be written" in missing.stderr
