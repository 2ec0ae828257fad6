"""The fixtures of the integration tests."""

from tests.integration.embedded_valkey import persistent_keys, redis_url, valkey
from tests.integration.stack import network, stack

__all__ = ["network", "persistent_keys", "redis_url", "stack", "valkey"]
