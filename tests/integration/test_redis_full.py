"""Redis without memory left: nothing is started or lost, no process has to be started again (CONTRACT section 2)."""

from tests.integration.horses import begin
from tests.integration.own_redis import Own, advises, recovers, refuses, still, walked


def test_a_redis_that_is_full_for_a_while(own: Own) -> None:
    """The walk waits, a button is 503, or 409 while the run's lease holds, and never a 500; then all goes on."""
    stack = own.stack
    with walked(stack) as (network, run_id):
        stack.redis.config_set("maxmemory", "1")
        still(network, stack)
        assert {stack.trigger(**query).status_code for query in ({}, {"defer": 1})} <= {409, 503}
        for path in ("/metrics", "/"):  # only reads: what is wrong can be seen
            assert stack.client.get(path).status_code == 200, path
        recovers(stack, network, run_id, lambda: stack.redis.config_set("maxmemory", "0"))
        stack.redis.config_set("maxmemory", "1")
        refuses(stack, "takes no writes")
        advises(stack, "command not allowed when used memory > 'maxmemory'")
        stack.redis.config_set("maxmemory", "0")
        assert stack.ended(begin(stack)).status == "succeeded"
        assert [process.poll() for process in stack.processes] == [None, None]
