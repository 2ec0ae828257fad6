"""activate and deactivate, with web process and workers as they are deployed (CONTRACT section 7)."""

import pytest

from jobs import keys
from tests.integration.horses import calls, repeats, walking
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork


def test_deactivated_the_web_process_refuses_with_503_and_activate_lifts_it(stack: Stack, network: DemoNetwork) -> None:
    """Deferred or not; for good, until `activate`, done twice or not."""
    stack.web()
    for _ in range(2):
        done = stack.command("deactivate")
        assert (done.returncode, "until `all-sites-cron activate`" in done.stdout) == (0, True)
    for query in ({}, {"defer": 1}):
        answer = stack.trigger(**query)
        assert (answer.status_code, answer.json()["error"]) == (503, "deactivated")
    assert stack.command("run").returncode == 75
    assert calls(network) == 0
    assert "is deactivated; `all-sites-cron activate` lifts it" in stack.command("status").stdout
    for _ in range(2):
        assert stack.command("activate").returncode == 0
    assert "deactivated" not in stack.command("status").stdout
    assert stack.trigger().status_code == 200
    assert network.stats()["ran_sites"] == 120


def test_deactivated_until_a_time_the_web_process_names_it(stack: Stack, network: DemoNetwork) -> None:
    stack.web()
    done = stack.command("deactivate", "--until", "2090-01-31T10:00:00+02:00")
    assert "until 2090-01-31 08:00:00 UTC" in done.stdout
    answer = stack.trigger()
    assert (answer.status_code, "until 2090-01-31 08:00:00 UTC" in answer.json()["message"]) == (503, True)
    assert "is deactivated until 2090-01-31 08:00:00 UTC" in stack.command("status").stdout


def test_deactivated_for_a_moment_it_is_over_by_itself(stack: Stack, network: DemoNetwork) -> None:
    stack.web()
    assert stack.command("deactivate", "--until", "1s").returncode == 0
    stack.ended(_admitted(stack))
    assert not stack.redis.exists(keys.DEACTIVATED)


def _admitted(stack: Stack) -> str:
    while (answer := stack.trigger()).status_code == 503:
        continue
    return str(answer.json()["run_id"])


@pytest.mark.parametrize("text", ["soon", "-2h", "2001-01-01", "", "\x1b[31mred"])
def test_a_wrong_until_is_exit_code_2_and_changes_nothing(stack: Stack, text: str) -> None:
    stack.command("deactivate")
    done = stack.command("deactivate", f"--until={text}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--until={text!r}" in done.stderr
    assert "2h" in done.stderr
    assert "\x1b" not in done.stderr
    assert stack.redis.get(keys.DEACTIVATED) == b"0"


def test_activate_clears_the_cooldown(stack: Stack, network: DemoNetwork) -> None:
    stack.web()
    assert [stack.trigger().status_code for _ in range(2)] == [200, 429]
    stack.command("activate")
    assert stack.trigger().status_code == 200


@pytest.mark.parametrize("command", ["activate", "deactivate", "check"])
def test_a_run_in_progress_is_not_disturbed(stack: Stack, command: str) -> None:
    """It keeps its lock and ends as it would have; no site is called twice."""
    with walking(stack) as (network, run_id):
        assert stack.command(command).returncode == 0
        assert not stack.run(run_id).final
        assert stack.redis.mget(keys.ACTIVE, keys.LOCK) == [run_id.encode()] * 2
        assert stack.trigger().status_code == (503 if command == "deactivate" else 409)
        assert stack.ended(run_id).status == "succeeded"
        assert (network.stats()["ran_sites"], repeats(network)) == (300, 0)


@pytest.mark.parametrize("arguments", [["activate"], ["deactivate"], ["deactivate", "--until", "2h"], ["uninstall"]])
def test_without_redis_they_end_with_69(stack: Stack, arguments: list[str]) -> None:
    done = stack.command(*arguments, REDIS_URL="redis://127.0.0.1:1")
    assert done.returncode == 69
    assert "Redis cannot be asked" in done.stderr
