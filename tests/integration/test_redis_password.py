"""A Redis whose password is another than that of REDIS_URL (CONTRACT section 2)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.integration.horses import begin
from tests.integration.own_redis import Own, advises, recovers, refuses, still, walked
from tests.integration.processes import until
from wordpress.demo_network import DemoNetwork, running

RIGHT, OTHER = "right-horse", "other-horse"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    """A deployment whose server asks for a password."""
    made = Own(tmp_path, RIGHT)
    try:
        yield made
    finally:
        made.close()


def change(own: Own, before: str, after: str) -> None:
    """The server's password is another from now on, and everybody has to say it."""
    with Redis(port=own.port, password=before) as admin:
        admin.config_set("requirepass", after)
        admin.client_kill_filter(_type="normal", skipme=True)
        admin.client_kill_filter(_type="pubsub", skipme=True)


def test_a_password_that_is_changed_for_a_while(own: Own) -> None:
    """The walk waits, every button is 503, never a 500; then all goes on. No password is told."""
    stack = own.stack
    with walked(stack) as (network, run_id):
        change(own, RIGHT, OTHER)
        still(network, stack)
        refuses(stack, "unreachable")
        assert stack.client.get("/metrics").status_code == 503
        advises(stack, "invalid username-password pair or user is disabled.")
        recovers(stack, network, run_id, lambda: change(own, OTHER, RIGHT))
    assert RIGHT not in stack.log("web") + stack.log("worker")


def test_a_password_that_is_wrong_at_the_start(own: Own) -> None:
    """Web and worker stay, say what is wrong, and serve once the password is right."""
    stack = own.stack
    change(own, RIGHT, OTHER)
    with running(DemoNetwork.plain(6)) as network:
        stack.use(network)
        stack.web()
        worker = stack.start("worker")
        until(lambda: "Redis cannot be asked; it will be asked again" in stack.log("worker"), 20)
        refuses(stack, "unreachable")
        assert network.sites.calls == 0
        change(own, OTHER, RIGHT)
        assert stack.ended(begin(stack)).status == "succeeded"
        assert worker.poll() is None
