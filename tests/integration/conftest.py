"""The fixtures of the integration tests."""

from tests.integration.embedded_valkey import persistent_keys, redis_url, valkey
from tests.integration.own_redis import own
from tests.integration.shared_web import module_network, module_stack, sites, web
from tests.integration.stack import few, network, stack

__all__ = [
    "few",
    "module_network",
    "module_stack",
    "network",
    "own",
    "persistent_keys",
    "redis_url",
    "sites",
    "stack",
    "valkey",
    "web",
]
