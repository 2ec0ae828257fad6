"""`run` and its kin from the command line: what is printed and the exit code (CONTRACT section 8)."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import until
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

Done = subprocess.CompletedProcess[str]


def body(done: Done) -> dict[str, Any]:
    """What the command printed: one JSON object on one line."""
    assert done.stdout.count("\n") == 1, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def log_lines(text: str) -> list[dict[str, Any]]:
    """The log, every line of it JSON."""
    return [json.loads(line) for line in text.splitlines()]


def fail_some(network: DemoNetwork, number: int = 4) -> None:
    for site in network.sites.all[:number]:
        site.behaviour = Behaviour.ERROR500


def test_run_walks_here_and_prints_the_answer(stack: Stack, network: DemoNetwork) -> None:
    done = stack.command("run")
    answer = body(done)
    assert done.returncode == 0
    assert (answer["success"], answer["count"], answer["errors"]) == (True, 120, 0)
    assert stack.run(answer["run_id"]).mode == "cli"
    assert network.stats()["ran_sites"] == 120


def test_off_a_terminal_the_log_is_json_with_a_line_at_the_start_and_the_end_of_a_run(
    stack: Stack, network: DemoNetwork
) -> None:
    """Each with the run's id."""
    fail_some(network)
    done = stack.command("run")
    lines = log_lines(done.stderr)
    assert {line["run_id"] for line in lines} == {body(done)["run_id"]}
    assert [line["event"] for line in lines if line["level"] == "info"] == ["walker joined", "run started", "run ended"]
    ended = lines[-1]
    assert (ended["status"], ended["count"], ended["dispatched"], ended["errors"]) == ("partial", 120, 116, 4)
    assert [line["outcome"] for line in lines if line["level"] == "warning"] == ["http_5xx"] * 4


def test_run_with_ga_is_one_workflow_command(stack: Stack, network: DemoNetwork) -> None:
    done = stack.command("run", "--ga")
    assert (done.returncode, done.stdout) == (0, "::notice::Running wp-cron on 120 sites\n")


def test_some_failed_sites_are_exit_code_1(stack: Stack, network: DemoNetwork) -> None:
    fail_some(network)
    done = stack.command("run")
    assert (done.returncode, body(done)["error_code"], body(done)["errors"]) == (1, "PARTIAL_FAILURE", 4)
    ga = stack.command("run", "--ga", ALL_SITES_CRON_RATE_LIMIT_SECONDS="0")
    assert ga.returncode == 1
    assert ga.stdout.startswith("::warning::Completed with 4 error(s): Error for http://127.0.0.2:")
    assert ga.stdout.endswith("...\n")


def test_no_public_site_is_exit_code_1(stack: Stack) -> None:
    path = stack.folder / "none.txt"
    path.write_text("# none yet\n")
    done = stack.command("run", "--ga", ALL_SITES_CRON_SITES=str(path))
    assert (done.returncode, done.stdout) == (1, "::error::No public sites found in the network\n")


def test_a_deferred_run_without_a_worker_is_queued_and_says_so(stack: Stack, network: DemoNetwork) -> None:
    done = stack.command("run", "--defer")
    assert done.returncode == 0
    assert (body(done)["status"], body(done)["workers"]) == ("queued", 0)
    assert stack.run(body(done)["run_id"]).status == "queued"
    joined = stack.command("run", "--defer", "--ga")
    assert joined.returncode == 0
    assert joined.stdout == "::warning::Cron job queued to Redis, but no worker is listening\n"
    assert network.stats()["calls"] == 0


@pytest.mark.parametrize("options", [(), ("--wait",)])
def test_a_deferred_run_without_a_queue_goes_on_in_this_process_after_the_answer(
    stack: Stack, network: DemoNetwork, options: tuple[str, ...]
) -> None:
    done = stack.command("run", "--defer", *options, ALL_SITES_CRON_USE_REDIS_QUEUE="false")
    assert done.returncode == 0
    run = stack.run(body(done)["run_id"])
    assert (run.status, run.mode) == ("succeeded", "deferred")
    assert options or (body(done)["mode"], body(done)["status"]) == ("deferred", "queued")
    assert network.stats()["ran_sites"] == 120


def test_defer_and_wait_wait_for_the_workers_to_end_the_run(stack: Stack, network: DemoNetwork) -> None:
    stack.worker()
    done = stack.command("run", "--defer", "--wait")
    assert (done.returncode, body(done)["count"]) == (0, 120)
    assert stack.run(body(done)["run_id"]).status == "succeeded"
    fail_some(network)
    partial = stack.command("run", "--defer", "--wait", ALL_SITES_CRON_RATE_LIMIT_SECONDS="0")
    assert (partial.returncode, body(partial)["errors"]) == (1, 4)


@pytest.mark.parametrize(("options", "code"), [((), 75), (("--quiet-if-busy",), 0), (("--defer",), 75)])
def test_a_cooldown_is_exit_code_75_or_0_if_asked(
    stack: Stack, network: DemoNetwork, options: tuple[str, ...], code: int
) -> None:
    assert stack.command("run").returncode == 0
    done = stack.command("run", *options)
    assert (done.returncode, body(done)["error"]) == (code, "rate_limited")
    assert network.stats()["calls"] == 120


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_walk_and_leaves_the_run_to_a_worker(
    stack: Stack, network: DemoNetwork, number: signal.Signals
) -> None:
    """Meanwhile another `run` is refused with 75, and `status` shows the run; nothing runs twice or is lost."""
    for site in network.sites.all:
        site.latency_ms = 150
    stack.set(concurrency=2)
    process = stack.start("run", command=f"{sys.executable} -m service run")
    until(lambda: int(str(network.stats()["calls"])) > 2)

    busy = stack.command("run")
    assert (busy.returncode, body(busy)["error"]) == (75, "locked")
    run_id = body(busy)["run_id"]
    assert stack.command("run", "--ga").stdout.startswith("::warning::Another cron process")
    assert stack.command("run", "--quiet-if-busy").returncode == 0
    status = stack.command("status")
    assert f"Run {run_id} is running" in status.stdout

    process.send_signal(number)
    assert process.wait(10) == 0
    assert '"status": "running"' in stack.log("run")
    assert not stack.run(run_id).final
    left = network.stats()
    assert left["in_flight"] == 0
    assert int(str(left["calls"])) < 60

    stack.set(concurrency=50, origin_concurrency=50)
    stack.worker()
    assert stack.ended(run_id).status == "succeeded"
    assert (network.stats()["ran_sites"], network.stats()["calls"]) == (120, 120)


def test_redis_away_is_exit_code_69(stack: Stack, network: DemoNetwork) -> None:
    done = stack.command("run", REDIS_URL="redis://127.0.0.1:1")
    assert (done.returncode, body(done)["error"]) == (69, "redis_unavailable")
    assert network.stats()["calls"] == 0


@pytest.mark.parametrize("command", ["run", "status", "sites", "config", "check", "trigger"])
def test_a_wrong_setting_is_exit_code_2_and_named(stack: Stack, command: str) -> None:
    site = ["1"] if command == "trigger" else []
    done = stack.command(command, *site, ALL_SITES_CRON_CONCURRENCY="many", ALL_SITES_CRON_AUTH_TOKENS="broken-s3cret")
    assert done.returncode == 2
    assert "ALL_SITES_CRON_CONCURRENCY='many'" in done.stderr
    assert "ALL_SITES_CRON_AUTH_TOKENS=…" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_without_redis_url_the_text_names_up(stack: Stack) -> None:
    del stack.environ["REDIS_URL"]
    done = stack.command("run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "REDIS_URL" in done.stderr
    assert "all-sites-cron up" in done.stderr


def test_help_lists_the_commands_and_version_is_one_line(stack: Stack) -> None:
    shown = stack.command("--help", COLUMNS="200")
    assert shown.returncode == 0
    for name in ("up", "run", "trigger", "status", "sites", "config", "check", "demo-network"):
        assert f" {name} " in shown.stdout
    version = stack.command("--version")
    assert (version.returncode, version.stdout.split()[0]) == (0, "all-sites-cron")
    assert stack.command("nonsense").returncode == 2


def test_demo_network_says_where_it_is_and_ends_on_sigterm(stack: Stack) -> None:
    process = stack.start("demo", command=f"{sys.executable} -m service demo-network --sites 9 --addresses 2")
    until(lambda: stack.log("demo").endswith("\n"))
    said = json.loads(stack.log("demo"))
    assert said["ready"] is True
    done = stack.command("run", ALL_SITES_CRON_SITES=said["sites_url"], ALL_SITES_CRON_REQUEST_TIMEOUT="3")
    assert body(done)["count"] == 9
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert Path(f"/proc/{process.pid}").exists() is False
