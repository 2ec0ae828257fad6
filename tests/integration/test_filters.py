"""Filters that change a setting, each seen from outside; where they are loaded from and in which order they are called.

CONTRACT section 6, "Filters".
"""

from pathlib import Path

import httpx
import pytest

from jobs.outcomes import Outcome
from tests.integration.filter_rig import install, list_sites, use_filters, write
from tests.integration.horses import begin, calls
from tests.integration.odd_servers import OK, certificate, serving
from tests.integration.processes import until
from tests.integration.stack import API, ROOT, Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour


@pytest.mark.parametrize("name", ["all_sites_cron_rate_limit_seconds", "dss_cron_rate_limit_seconds"])
@pytest.mark.parametrize(("setting", "value", "second"), [(60, 0, 200), (0, 600, 429)])
def test_the_cooldown_is_the_filter_s(
    stack: Stack, few: DemoNetwork, name: str, setting: int, value: int, second: int
) -> None:
    """A second call is admitted or refused as the filter of either name says, whatever RATE_LIMIT_SECONDS is."""
    use_filters(stack, f"add_filter({name!r}, lambda now: {value} if now == {setting} else -1)")
    stack.set(rate_limit_seconds=setting)
    stack.web()
    assert stack.trigger().status_code == 200
    answer = stack.trigger()
    assert answer.status_code == second
    assert answer.json().get("cooldown", value) == value


def test_a_legacy_name_goes_before_the_new_one_and_is_logged_once(stack: Stack, few: DemoNetwork) -> None:
    """Whatever their priorities: the new name's function gets what the legacy one's gave back."""
    use_filters(
        stack,
        """
        add_filter("all_sites_cron_rate_limit_seconds", lambda now: now + 1, 1)
        add_filter("dss_cron_rate_limit_seconds", lambda now: 500, 99)
        """,
    )
    stack.web()
    stack.trigger()
    assert [stack.trigger().json()["cooldown"] for _ in range(2)] == [501, 501]
    line = "dss_cron_rate_limit_seconds is the legacy name of a filter; use all_sites_cron_rate_limit_seconds."
    assert stack.log("web").count(line) == 1
    assert stack.log("web").count("legacy name") == 1


def test_they_go_by_priority_then_in_the_order_of_registration(stack: Stack, few: DemoNetwork) -> None:
    """Each gets what the one before gave back, the first one the setting."""
    use_filters(
        stack,
        """
        name = "all_sites_cron_rate_limit_seconds"
        add_filter(name, lambda now: now * 10 + 3)
        add_filter(name, lambda now: now * 10 + 4)
        add_filter(name, lambda now: now * 10 + 5, 11)
        add_filter(name, lambda now: now * 10 + 2, priority=9)
        """,
    )
    stack.set(rate_limit_seconds=1)
    stack.web()
    stack.trigger()
    assert stack.trigger().json()["cooldown"] == 12345


@pytest.mark.parametrize("name", ["all_sites_cron_number_of_sites", "dss_cron_number_of_sites"])
def test_the_number_of_sites_is_the_filter_s(stack: Stack, few: DemoNetwork, name: str) -> None:
    """So many calls arrive, and the answer says how many sites are left."""
    use_filters(stack, f"add_filter({name!r}, lambda now: 5)")
    stack.web()
    answer = stack.trigger().json()
    assert (answer["count"], answer["remaining"], calls(few)) == (5, 7, 5)


def test_the_batch_size_is_the_filter_s(stack: Stack, few: DemoNetwork) -> None:
    """12 sites in batches of 5 are three in the run record."""
    use_filters(stack, "add_filter('all_sites_cron_batch_size', lambda now: now // 10)")
    stack.web()
    assert stack.run(stack.trigger().json()["run_id"]).batches == 3


@pytest.mark.parametrize("name", ["all_sites_cron_request_timeout", "dss_cron_request_timeout"])
def test_the_request_timeout_is_the_filter_s(stack: Stack, few: DemoNetwork, name: str) -> None:
    """A site that takes 3 s times out; the plugin's 0.01 is raised to 1 s, in which the others answer."""
    few.sites.all[4].latency_ms = 3000
    use_filters(stack, f"add_filter({name!r}, lambda now: 0.01)")
    stack.web()
    answer = stack.trigger().json()
    assert (answer["success"], answer["dispatched"], answer["timeouts"]) == (True, 11, 1)


def test_whether_there_is_a_queue_is_the_filter_s(stack: Stack, few: DemoNetwork) -> None:
    """A deferred run goes on in the web process, without any worker."""
    use_filters(stack, "add_filter('all_sites_cron_use_redis_queue', lambda now: False)")
    stack.web()
    answer = stack.trigger(defer=1).json()
    assert answer["mode"] == "deferred"
    assert stack.ended(answer["run_id"]).status == "succeeded"
    assert calls(few) == 12


def test_the_queue_s_name_is_the_filter_s(stack: Stack, few: DemoNetwork) -> None:
    """A worker on the queue that the filter names takes the job; the Procfile's own is told which one it must be."""
    use_filters(stack, "add_filter('all_sites_cron_redis_queue_key', lambda now: now + ':blue')")
    refused = stack.start("worker")
    assert refused.wait(20) != 0
    assert "must listen to exactly one queue, 'all-sites-cron:blue'" in stack.log("worker")
    stack.web()
    run_id = begin(stack)
    line = next(line for line in (ROOT / "Procfile").read_text().splitlines() if line.startswith("worker: "))
    stack.start("blue", command=f"{line.removeprefix('worker: ').rpartition(' ')[0]} all-sites-cron:blue")
    assert stack.ended(run_id).status == "succeeded"


def test_the_number_of_retries_is_the_filter_s(stack: Stack, few: DemoNetwork) -> None:
    """A site that stays busy is called once, and once more."""
    site = few.sites.all[7]
    site.behaviour, site.busy_calls = Behaviour.BUSY503, 1000
    use_filters(stack, "add_filter('all_sites_cron_redis_max_retries', lambda now: now - 2)")
    stack.web()
    assert stack.trigger().json()["errors"] == 1
    assert site.calls == 2


@pytest.mark.parametrize(("setting", "required", "status"), [("true", False, 200), ("false", True, 401)])
def test_whether_a_token_is_needed_is_the_filter_s(
    stack: Stack, few: DemoNetwork, setting: str, required: bool, status: int
) -> None:
    """A call without a token is let in or refused, whatever REQUIRE_AUTH says."""
    use_filters(stack, f"add_filter('all_sites_cron_require_auth', lambda now: {required})")
    stack.set(require_auth=setting)
    stack.web()
    assert httpx.get(f"http://127.0.0.1:{stack.port}{API}/run", timeout=30).status_code == status
    assert calls(few) == (12 if status == 200 else 0)


def test_a_token_that_the_filter_requires_must_be_configured(stack: Stack) -> None:
    """Else the web process does not start."""
    del stack.environ["ALL_SITES_CRON_AUTH_TOKEN"]
    use_filters(stack, "add_filter('all_sites_cron_require_auth', lambda now: True)")
    stack.set(require_auth="false")
    assert stack.start("web").wait(20) == 1
    assert "ALL_SITES_CRON_AUTH_TOKEN is not set" in stack.log("web")


@pytest.mark.parametrize(
    ("setting", "verify", "outcome"), [("true", False, Outcome.DISPATCHED), ("false", True, Outcome.TLS)]
)
def test_whether_certificates_are_verified_is_the_filter_s(
    stack: Stack, tmp_path: Path, setting: str, verify: bool, outcome: Outcome
) -> None:
    """A site with a certificate signed by itself is dispatched or not, by a run and by `trigger` alike."""
    context, _ = certificate(tmp_path, "127.0.0.1")
    with serving(OK, context=context) as server:
        list_sites(stack, [f"https://{server.netloc}"])
        use_filters(stack, f"add_filter('https_local_ssl_verify', lambda now: {verify})")
        stack.set(ssl_verify=setting)
        stack.web()
        assert stack.run(stack.trigger().json()["run_id"]).counts == {outcome: 1}
        explained = stack.command("trigger", "1")
        assert ("TLS not verified" in explained.stdout, explained.returncode) == (not verify, int(verify))


def test_they_are_loaded_in_the_web_process_and_in_the_worker(stack: Stack, few: DemoNetwork) -> None:
    """Admission asks the web process's, the walk the worker's."""
    use_filters(
        stack,
        """
        import os

        def mine(now):
            with Path(__file__).with_name("told").open("a") as told:
                print(os.getpid(), file=told)
            return 7

        add_filter("all_sites_cron_rate_limit_seconds", mine)
        add_filter("all_sites_cron_number_of_sites", mine)
        """,
    )
    web = stack.web()
    stack.worker()
    run = stack.ended(begin(stack))
    assert (run.status, run.count, calls(few)) == ("succeeded", 7, 7)
    until(lambda: stack.trigger(defer=1).json().get("cooldown") == 7)
    askers = set((stack.folder / "told").read_text().split())
    assert str(web.pid) in askers
    assert len(askers) > 1


@pytest.mark.parametrize("also", ["", "mine"])
def test_an_installed_distribution_may_bring_filters(stack: Stack, few: DemoNetwork, also: str) -> None:
    """By an entry point of the group all_sites_cron.filters; a module that is also named is not added twice."""
    write(stack, "add_filter('all_sites_cron_number_of_sites', lambda now: now + 4)")
    install(stack, "mine = mine")
    stack.set(filters=also)
    stack.web()
    assert stack.trigger().json()["count"] == 4


def test_config_shows_which_filters_there_are(stack: Stack) -> None:
    """Each with its functions, in the order they are called, and their priorities."""
    use_filters(
        stack,
        """
        def late(now): return now
        def early(now): return now

        add_filter("all_sites_cron_batch_size", late)
        add_filter("all_sites_cron_batch_size", early, 1)
        """,
    )
    assert "filter all_sites_cron_batch_size: mine.early (1), mine.late (10)\n" in stack.command("config").stdout


def test_several_modules_are_loaded_in_their_order(stack: Stack, few: DemoNetwork) -> None:
    """ALL_SITES_CRON_FILTERS=first,second."""
    write(stack, "add_filter('all_sites_cron_number_of_sites', lambda now: 4)", "first")
    write(stack, "add_filter('all_sites_cron_number_of_sites', lambda now: now * 2 + 1)", "second")
    stack.set(filters="first, second")
    stack.web()
    assert stack.trigger().json()["count"] == 9
