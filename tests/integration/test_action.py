"""action.yml against a live service: what a workflow sees of a run (CONTRACT section 8)."""

import re
import sys

import pytest

from jobs import keys
from tests.integration.action import TEXT, Step, act, default_inputs, script, variables
from tests.integration.processes import until
from tests.integration.stack import API, TOKEN, Stack
from tests.integration.test_command_line import fail_some
from wordpress.demo_network import DemoNetwork


def at(stack: Stack, **inputs: str) -> Step:
    """The step, at the stack's service with its token."""
    return act(stack.folder, **{"url": str(stack.client.base_url), "token": TOKEN, **inputs})


def test_inputs_reach_the_script_as_variables_and_in_no_other_way() -> None:
    """An expression inside a script would be code that a caller writes; each input has its variable."""
    assert "${{" not in script()
    assert sorted(variables().values()) == sorted(default_inputs())
    read = set(re.findall(r'(?:given|flag|seconds)\("([A-Z_]+)"', script()))
    assert {f"INPUT_{name}" for name in read} == set(variables())
    assert {"run-id", "status", "count", "dispatched", "errors"} == set(
        re.findall(r"steps\.run\.outputs\.([a-z-]+)", TEXT)
    )


def test_a_queued_run_is_a_notice_and_wait_waits_for_its_end(stack: Stack, network: DemoNetwork) -> None:
    """Without `wait` the step ends at once, with the run's id; with it, with the run's figures."""
    stack.set(rate_limit_seconds=0)
    stack.web()
    stack.worker()
    queued = at(stack)
    assert (queued.code, queued.annotation) == (0, "::notice::Cron job queued to Redis for background processing")
    assert queued.outputs["status"] == "queued"
    assert stack.ended(queued.outputs["run-id"]).count == 120
    for inputs in ({"wait": "true"}, {"verify": "true"}):
        done = at(stack, **inputs)
        assert (done.code, done.annotation) == (0, "::notice::Running wp-cron on 120 sites")
        run_id = done.outputs.pop("run-id")
        assert done.outputs == {"status": "succeeded", "count": "120", "dispatched": "120", "errors": "0"}
        assert stack.run(run_id).status == "succeeded"
        assert f"| run | {run_id} |" in done.summary
        assert "| dispatched | 120 |" in done.summary
        assert done.stderr == ""


@pytest.mark.parametrize("how", [{"defer": "false"}, {"wait": "true"}])
def test_some_failed_sites_are_one_warning_and_fail_the_step_if_asked(
    stack: Stack, network: DemoNetwork, how: dict[str, str]
) -> None:
    """However long the list: one annotation, the rest is in the summary."""
    fail_some(network)
    stack.set(rate_limit_seconds=0, max_retries=0)
    stack.web()
    if "wait" in how:
        stack.worker()
    done = at(stack, **how)
    assert done.code == 0
    assert re.fullmatch(
        r"::warning::Completed with 4 error\(s\): (Error for http://\S+: .*?(; )?){3}\.\.\.", done.annotation
    )
    assert (done.outputs["status"], done.outputs["errors"], done.outputs["count"]) == ("partial", "4", "120")
    assert done.summary.count("| failed | http&#95;5xx |") == 4
    strict = at(stack, fail_on_partial="true", **how)
    assert (strict.code, strict.annotation) == (1, done.annotation.replace("warning", "error", 1))


def test_a_run_that_failed_fails_the_step(stack: Stack) -> None:
    """Here, because its list of sites cannot be read."""
    stack.set(sites="/nowhere.csv", rate_limit_seconds=0)
    stack.web()
    stack.worker()
    for how in ({"defer": "false"}, {"wait": "true"}):
        done = at(stack, **how)
        assert done.code == 1
        assert re.fullmatch("::error::.*/nowhere.csv.*", done.annotation)
        assert done.outputs["status"] == "failed"
        assert stack.run(done.outputs["run-id"]).status == "failed"


def test_a_cooldown_is_a_notice_or_fails_the_step_if_asked(stack: Stack, network: DemoNetwork) -> None:
    """Retry-After is longer than `busy-wait`, so nothing waits."""
    stack.web()
    assert at(stack, defer="false").code == 0
    done = at(stack, busy_wait="0")
    assert (done.code, done.outputs["status"]) == (0, "busy")
    assert re.fullmatch(r"::notice::Rate limited\. Try again in \d+ seconds\.", done.annotation)
    fails = at(stack, busy="fail", busy_wait="0")
    assert fails.code == 1
    assert fails.annotation.startswith("::error::Rate limited.")
    assert network.stats()["calls"] == 120


def test_a_cooldown_within_busy_wait_is_waited_for(stack: Stack, network: DemoNetwork) -> None:
    """As long as Retry-After says, then the run starts."""
    stack.set(rate_limit_seconds=3)
    stack.web()
    assert at(stack, defer="false").code == 0
    done = at(stack, defer="false", busy_wait="5")
    assert (done.code, done.outputs["status"]) == (0, "succeeded")


def test_a_running_run_and_a_deactivated_service_are_busy(stack: Stack, network: DemoNetwork) -> None:
    """Both are a notice unless `busy: fail` is said."""
    stack.web()
    stack.redis.set(keys.DEACTIVATED, 0)
    try:
        done = at(stack)
        assert (done.code, done.outputs["status"]) == (0, "busy")
        assert done.annotation.startswith("::notice::All Sites Cron is deactivated")
        assert at(stack, busy="fail").code == 1
    finally:
        stack.redis.delete(keys.DEACTIVATED)
    for site in network.sites.all:
        site.latency_ms = 150
    stack.set(concurrency=2)
    walking = stack.start("run", command=f"{sys.executable} -m service run")
    until(lambda: stack.redis.exists(keys.LOCK) == 1)
    done = at(stack, busy_wait="0")
    assert (done.code, done.outputs["status"]) == (0, "busy")
    assert done.annotation.startswith("::notice::Another cron process is currently running")
    walking.terminate()


def test_a_wait_ends_with_an_error_when_the_run_does_not(stack: Stack, network: DemoNetwork) -> None:
    """No worker listens: without `wait` a warning, with it the step fails after `timeout`."""
    stack.web()
    done = at(stack)
    assert (done.code, done.annotation) == (0, "::warning::Cron job queued to Redis, but no worker is listening")
    waited = at(stack, wait="true", timeout="1")
    assert (waited.code, waited.annotation) == (1, "::error::The run has not ended within 1 s")
    assert waited.outputs["run-id"] == done.outputs["run-id"]


def test_a_wrong_token_fails_the_step_and_no_token_is_ever_printed(stack: Stack, network: DemoNetwork) -> None:
    """Each is masked before anything else, line by line."""
    stack.web()
    wrong = at(stack, token="wr0ng%s3cret")
    assert (wrong.code, wrong.masks, wrong.outputs["status"]) == (1, ["wr0ng%25s3cret"], "error")
    assert wrong.annotation.startswith("::error::")
    none = at(stack, token="")
    assert (none.code, none.masks) == (1, [])
    right = at(stack, defer="false")
    assert (right.code, right.masks) == (0, [TOKEN])
    for done in (wrong, none, right):
        shown = "".join(done.lines) + done.summary + done.stderr
        assert "s3cret" not in shown
        assert TOKEN not in shown
    broken = at(stack, token="one\ntwo")
    assert (broken.code, broken.masks) == (1, ["one", "two"])
    assert "two" not in broken.annotation


def test_a_service_may_be_given_by_any_of_its_addresses(stack: Stack, network: DemoNetwork) -> None:
    """As for `run --service`."""
    stack.set(rate_limit_seconds=0)
    stack.web()
    for where in ("", "/", API, f"{API}/run/", f"/blog{API}/run"):
        assert at(stack, url=f"http://127.0.0.1:{stack.port}{where}", defer="false").code == 0, where


WRONG = [
    ({"url": "http://127.0.0.1:1"}, "The service cannot be asked: "),
    ({"url": "ftp://127.0.0.1"}, "The input url must be"),
    ({"url": ""}, "The input url must be"),
    ({"url": "http://me:s3cret@127.0.0.1:1"}, "The input url must be"),
    ({"url": "http://127.0.0.1:1/?token=s3cret"}, "The input url must be"),
    ({"defer": "maybe"}, "The input defer must be"),
    ({"fail_on_partial": "2"}, "The input fail-on-partial must be"),
    ({"timeout": "1h"}, "The input timeout must be"),
    ({"busy": "wait"}, "The input busy must be"),
]


@pytest.mark.parametrize(("inputs", "text"), WRONG)
def test_an_unreachable_service_and_a_wrong_input_fail_the_step(
    stack: Stack, inputs: dict[str, str], text: str
) -> None:
    """Each with one error that names it, and without what may be secret."""
    done = act(stack.folder, **{"url": "http://127.0.0.1:1", **inputs})
    assert (done.code, done.outputs["status"]) == (1, "error")
    assert done.annotation.startswith(f"::error::{text}")
    assert "s3cret" not in done.annotation + done.summary + done.stderr
