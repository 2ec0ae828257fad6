"""Where a newer release is shown: the namespace's index, `status`, `update` (CONTRACT sections 1, 7, 8)."""

import json
import socket
from typing import Any

import pytest

from jobs import __version__, keys
from tests.integration.processes import until
from tests.integration.stack import API, Stack, free_port
from tests.unit.web_server import Serve, Server, serve

__all__ = ["serve"]

PAGE = "https://github.example/releases/tag/v99.0.0"


def release(tag: str, **more: object) -> dict[str, object]:
    """As GitHub's API gives it, less what is not read."""
    return {"tag_name": tag, "html_url": PAGE, "draft": False, "prerelease": False, "assets": [], **more}


def index(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = stack.client.get(API).json()
    return found


def test_the_index_shows_a_newer_release_that_the_feed_was_asked_for_once(stack: Stack, serve: Serve) -> None:
    """By however many processes, for however many callers; `status` shows the same."""
    server: Server = serve([release("v99.0.0"), release("v1.0.0")])
    stack.set(update_feed=server.url)
    first = stack.web()
    until(lambda: "update" in index(stack))
    assert [index(stack)["update"] for _ in range(20)] == [{"version": "99.0.0", "url": PAGE}] * 20
    first.terminate()
    first.wait(15)
    stack.web()
    until(lambda: "update" in index(stack))
    assert f"\nUpdate: 99.0.0, {PAGE}\n" in stack.command("status").stdout
    assert len(server.asked) == 1


@pytest.mark.parametrize("tag", [f"v{__version__}", "v0.1.0"])
def test_the_index_does_not_show_what_is_not_newer(stack: Stack, serve: Serve, tag: str) -> None:
    server: Server = serve([release(tag)])
    stack.set(update_feed=server.url)
    stack.web()
    until(lambda: b"[" in (stack.redis.get(keys.UPDATE) or b""))
    assert "update" not in index(stack)
    assert f"Update: none is newer than {__version__}" in stack.command("status").stdout


def test_without_the_setting_nothing_is_asked_or_shown(stack: Stack) -> None:
    stack.web()
    assert "update" not in index(stack)
    assert "Update" not in stack.command("status").stdout
    assert not stack.redis.exists(keys.UPDATE)
    done = stack.command("update")
    assert (done.returncode, done.stdout) == (2, "")
    assert "ALL_SITES_CRON_UPDATE_FEED is not set" in done.stderr


def test_a_hanging_feed_delays_no_request_and_no_exit(stack: Stack) -> None:
    """It is asked in a thread that nobody waits for."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        stack.set(update_feed=f"http://127.0.0.1:{hanging.getsockname()[1]}/")
        web = stack.web()
        connection, _ = hanging.accept()
        with connection:
            assert "update" not in index(stack)
            assert stack.client.get("/readyz").status_code == 200
            assert "Update: not known; it is being asked" in stack.command("status").stdout
            web.terminate()
            assert web.wait(10) is not None
    assert "Traceback" not in stack.log("web")


def test_the_index_answers_while_redis_is_away(stack: Stack, serve: Serve) -> None:
    """It shows what was known."""
    port = free_port()
    stack.environ["REDIS_URL"] = f"redis://127.0.0.1:{port}"
    stack.set(update_feed=serve([release("v99.0.0")]).url)
    web = stack.web()
    assert stack.client.get(API).status_code == 200
    assert web.poll() is None
    until(lambda: "Redis cannot be asked" in stack.log("web"))
    assert "Traceback" not in stack.log("web")


def test_update_says_what_is_new(stack: Stack, serve: Serve) -> None:
    """Exit code 0, whether there is something or not; it needs no Redis and installs nothing."""
    releases = [release("v99.0.0")]
    server = serve(lambda handler: handler.reply(json.dumps(releases)))
    del stack.environ["REDIS_URL"]
    stack.set(update_feed=server.url)
    done = stack.command("update")
    assert (done.returncode, done.stdout) == (0, f"Update: 99.0.0, {PAGE}\n")
    releases[0] = release(f"v{__version__}")
    done = stack.command("update", "--apply")
    assert (done.returncode, done.stdout) == (0, f"Update: none is newer than {__version__}\n")


def test_update_with_a_feed_that_fails_is_exit_code_69(stack: Stack, serve: Serve) -> None:
    """Unreachable or malformed: one sentence says which."""
    done = stack.command("update", ALL_SITES_CRON_UPDATE_FEED=serve({"message": "Not Found"}).url)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == "update feed: does not answer as GitHub lists releases\n"
    done = stack.command("update", ALL_SITES_CRON_UPDATE_FEED=f"http://127.0.0.1:{free_port()}/")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == "update feed: [Errno 111] Connection refused\n"
