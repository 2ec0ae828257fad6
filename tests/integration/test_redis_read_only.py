"""A Redis that was made the replica of a server nobody has: it reads, and takes no writes (CONTRACT section 2)."""

import signal

from tests.integration.horses import horse
from tests.integration.own_redis import SITES, Own, advises, recovers, refuses, still, walked
from tests.integration.processes import lives, until
from tests.integration.stack import free_port
from tests.integration.test_walk_stopped import EXIT_SECONDS


def test_a_redis_that_is_read_only_for_a_while(own: Own) -> None:
    """The walk waits, every button is 503, never a 500; then all goes on."""
    stack = own.stack
    with walked(stack) as (network, run_id):
        stack.redis.replicaof("127.0.0.1", str(free_port()))
        still(network, stack)
        refuses(stack, "takes no writes")
        assert stack.client.get("/metrics").status_code == 200
        advises(stack, "You can't write against a read only replica.")
        recovers(stack, network, run_id, lambda: stack.redis.replicaof("NO", "ONE"))


def test_a_worker_that_is_told_to_end_meanwhile(own: Own) -> None:
    """It does not wait for Redis: it is gone within 8 s, its horse too, and the next worker walks the rest."""
    stack = own.stack
    with walked(stack) as (network, run_id):
        worker = stack.processes[1]
        walking = horse(worker)
        stack.redis.replicaof("127.0.0.1", str(free_port()))
        still(network, stack)
        worker.send_signal(signal.SIGTERM)
        worker.wait(EXIT_SECONDS)
        until(lambda: not lives(walking), EXIT_SECONDS)
        stack.redis.replicaof("NO", "ONE")
        stack.worker()
        assert (stack.ended(run_id).count, network.stats()["ran_sites"]) == (SITES, SITES)
