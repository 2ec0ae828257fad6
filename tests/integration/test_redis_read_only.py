"""A Redis that was made the replica of a server nobody has: it reads, and takes no writes (CONTRACT section 2)."""

from tests.integration.own_redis import Own, advises, recovers, refuses, still, walked
from tests.integration.stack import free_port


def test_a_redis_that_is_read_only_for_a_while(own: Own) -> None:
    """The walk waits, every button is 503, never a 500; then all goes on."""
    stack = own.stack
    with walked(stack) as (network, run_id):
        stack.redis.replicaof("127.0.0.1", str(free_port()))
        still(network, stack)
        refuses(stack)
        assert stack.client.get("/metrics").status_code == 200
        advises(stack, "You can't write against a read only replica.")
        recovers(stack, network, run_id, lambda: stack.redis.replicaof("NO", "ONE"))
