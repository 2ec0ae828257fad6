"""Fixtures: one Valkey server a session, an empty database a test, and no key left without a TTL.

Not named after the server: `tests/integration` is on sys.path, and fakeredis imports a package `valkey`.
"""

import importlib
from collections.abc import Collection, Iterator

import pytest
from redis import Redis

from service.embedded import EmbeddedValkey

PREFIX = "all_sites_cron:"


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A running server; its socket's path is short whatever the test is called."""
    with EmbeddedValkey.start(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def persistent_keys() -> Collection[str]:
    """Names of keys that may stay without TTL; a test module may override it."""
    try:
        return tuple(importlib.import_module("jobs.keys").PERSISTENT)
    except ModuleNotFoundError:
        return ()


@pytest.fixture
def redis_url(valkey: EmbeddedValkey, persistent_keys: Collection[str]) -> Iterator[str]:
    """The URL of an empty database; fails the test if a key of this project is left without TTL."""
    with Redis.from_url(valkey.url) as redis:
        redis.flushall()
        yield valkey.url
        immortal = keys_without_ttl(redis, persistent_keys)
    assert not immortal, f"keys without TTL that jobs.keys.PERSISTENT gives no reason for: {immortal}"


def keys_without_ttl(redis: Redis, allowed: Collection[str] = ()) -> list[str]:
    """The keys of this project that would stay for ever, those of `allowed` left out."""
    names = sorted(key.decode() for key in redis.scan_iter(f"{PREFIX}*"))
    return [name for name in names if not name.startswith(tuple(allowed)) and redis.ttl(name) == -1]
