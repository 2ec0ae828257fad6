"""`run --service URL`: the same button, pressed at a running service (CONTRACT section 8)."""

import socket
import sys

import pytest

from jobs import keys
from tests.integration.odd_servers import serving
from tests.integration.processes import until
from tests.integration.stack import API, TOKEN, Stack
from tests.integration.test_command_line import Done, body, fail_some
from wordpress.demo_network import DemoNetwork


def at_service(stack: Stack, *arguments: str, **environ: str) -> Done:
    return stack.command("run", "--service", str(stack.client.base_url), *arguments, **environ)


def test_a_service_is_asked_with_the_token_of_the_environment(stack: Stack, network: DemoNetwork) -> None:
    """A wrong one and none are exit code 77; neither starts anything, nor needs REDIS_URL."""
    stack.web()
    del stack.environ["REDIS_URL"]
    for token in ("wrong", ""):
        done = at_service(stack, ALL_SITES_CRON_AUTH_TOKEN=token)
        assert (done.returncode, body(done)["code"].rpartition("_")[0]) == (77, "all_sites_cron_auth")
        assert network.stats()["calls"] == 0
    done = at_service(stack)
    assert (done.returncode, body(done)["count"]) == (0, 120)
    busy = at_service(stack)
    assert (busy.returncode, body(busy)["error"]) == (75, "rate_limited")
    assert at_service(stack, "--quiet-if-busy").returncode == 0


def test_a_token_may_come_from_a_file(stack: Stack, network: DemoNetwork) -> None:
    stack.web()
    secret = stack.folder / "token"
    secret.write_text(f"{TOKEN}\n")
    del stack.environ["ALL_SITES_CRON_AUTH_TOKEN"]
    assert at_service(stack, ALL_SITES_CRON_AUTH_TOKEN_FILE=str(secret)).returncode == 0
    done = at_service(stack, ALL_SITES_CRON_AUTH_TOKEN_FILE=str(secret.with_name("missing")))
    assert done.returncode == 2
    assert "ALL_SITES_CRON_AUTH_TOKEN_FILE" in done.stderr


def test_a_service_may_be_given_by_any_of_its_addresses(stack: Stack, network: DemoNetwork) -> None:
    stack.set(rate_limit_seconds=0)
    stack.web()
    for where in ("/", API, f"{API}/run", f"/blog{API}/run/", "/wp-json/dss-cron/v1/run"):
        done = stack.command("run", "--ga", "--service", f"http://127.0.0.1:{stack.port}{where}")
        assert (done.returncode, done.stdout) == (0, "::notice::Running wp-cron on 120 sites\n"), where


def test_some_failed_at_a_service_is_exit_code_1_with_the_same_line_as_here(stack: Stack, network: DemoNetwork) -> None:
    fail_some(network)
    stack.set(rate_limit_seconds=0)
    stack.web()
    stack.worker()
    here = stack.command("run", "--ga")
    assert here.returncode == 1
    for options in ((), ("--defer", "--wait")):
        there = at_service(stack, "--ga", *options)
        assert (there.returncode, there.stdout) == (1, here.stdout)


def test_a_source_that_cannot_be_read_is_exit_code_1_here_and_at_a_service(stack: Stack) -> None:
    """The service was reached: it is the run that failed."""
    stack.web()
    here = stack.command("run", "--ga")
    there = at_service(stack, "--ga")
    assert (here.returncode, there.returncode) == (1, 1)
    assert here.stdout == there.stdout
    assert here.stdout.startswith("::error::ALL_SITES_CRON_SITES is not set")


def test_a_deferred_run_at_a_service_says_when_no_worker_listens(stack: Stack, network: DemoNetwork) -> None:
    stack.web()
    done = at_service(stack, "--defer", "--ga")
    assert (done.returncode, done.stdout) == (
        0,
        "::warning::Cron job queued to Redis, but no worker is listening\n",
    )


def test_a_running_run_at_a_service_is_75_and_a_warning(stack: Stack, network: DemoNetwork) -> None:
    for site in network.sites.all:
        site.latency_ms = 150
    stack.web()
    stack.set(concurrency=2)
    stack.start("run", command=f"{sys.executable} -m service run")
    until(lambda: stack.redis.exists(keys.LOCK) == 1)
    done = at_service(stack, "--ga")
    assert done.returncode == 75
    assert done.stdout.startswith("::warning::Another cron process is currently running")


def test_a_service_that_answers_before_the_end_is_exit_code_0_and_wait_waits_for_it(
    stack: Stack, network: DemoNetwork
) -> None:
    fail_some(network)
    for site in network.sites.all:
        site.latency_ms = 150
    stack.set(sync_deadline=0.1, rate_limit_seconds=0, concurrency=10)
    stack.web()
    done = at_service(stack, "--ga")
    run_id = done.stdout.split()[-1]
    assert (done.returncode, done.stdout) == (0, f"::notice::Still running wp-cron; run {run_id}\n")
    assert stack.ended(run_id).count == 120
    done = at_service(stack, "--wait")
    assert (done.returncode, body(done)["status"], body(done)["errors"]) == (1, "partial", 4)


NOBODY = "http://127.0.0.1:1"


def test_an_unreachable_service_is_exit_code_69(stack: Stack) -> None:
    done = stack.command("run", "--service", NOBODY)
    assert (done.returncode, done.stdout) == (69, "")
    assert f'"{NOBODY}" cannot be asked' in done.stderr


WRONG = ["http://127.0.0.1:port", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://me:s3cret@127.0.0.1:1"]


@pytest.mark.parametrize("url", WRONG)
def test_what_is_no_address_of_a_service_is_exit_code_2(stack: Stack, url: str) -> None:
    done = stack.command("run", "--service", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--service is" in done.stderr
    assert "s3cret" not in done.stderr


def test_a_token_that_no_header_can_carry_is_exit_code_2_and_not_shown(stack: Stack) -> None:
    done = stack.command("run", "--service", NOBODY, ALL_SITES_CRON_AUTH_TOKEN="s3cret\r")
    assert done.returncode == 2
    assert "ALL_SITES_CRON_AUTH_TOKEN" in done.stderr
    assert "s3cret" not in done.stderr


def elsewhere(status: str, target: str) -> bytes:
    body = '{"success": true, "status": "queued"}'
    return f"HTTP/1.1 {status}\r\nLocation: {target}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(("status", "options"), [("202 Accepted", "--wait"), ("200 OK", "--ga")])
def test_a_location_at_another_server_is_exit_code_69_and_never_sees_the_token(
    stack: Stack, status: str, options: str
) -> None:
    """Another port is another server; the answer's own server may name itself in full."""
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as far:
        with serving(elsewhere(status, f"//{far.netloc}/runs/1?a=s3cret")) as server:
            done = stack.command("run", options, "--service", server.url)
        assert (done.returncode, done.stdout) == (69, "")
        assert f'its Location is "{far.url}/runs/1", another server\'s' in done.stderr
        assert far.heads == []


def test_a_location_in_full_at_the_same_server_is_followed(stack: Stack) -> None:
    def answer(peer: socket.socket, head: str) -> None:
        ended = b'{"status": "succeeded"}'
        there = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ended), ended)
        peer.sendall(there if head.startswith("GET") else elsewhere("202 Accepted", f"{server.url}/runs/1"))

    with serving(answer) as server:
        done = stack.command("run", "--wait", "--service", server.url)
    assert (done.returncode, body(done)) == (0, {"status": "succeeded"})
    assert [f"Bearer {TOKEN}" in head for head in server.heads] == [True, True]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    ],
    ids=["html", "no location", "redirect", "list"],
)
def test_an_answer_that_is_no_services_is_exit_code_69(stack: Stack, answer: bytes) -> None:
    with serving(answer) as server:
        done = stack.command("run", "--wait", "--service", server.url)
    assert done.returncode == 69
    assert "Traceback" not in done.stderr
