"""The fixtures of the core's unit tests."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import settings

from jobs import keys
from tests.unit.fakes import Cron
from tests.unit.walker_rig import Network
from tests.unit.web_server import serve
from tests.unit.window_rig import MakeRig, Rig

__all__ = ["serve"]

settings.register_profile("many", max_examples=5_000, deadline=None)  # docs/reliability.md, "Inputs tried"


@pytest.fixture
def make_cron() -> Iterator[Callable[..., Cron]]:
    """Makes an empty Redis with the scripts for given settings; no key of ours may be left without a TTL."""
    made: list[Cron] = []

    def make(**values: object) -> Cron:
        made.append(Cron(**values))
        return made[-1]

    yield make
    for cron in made:
        names = [key.decode() for key in cron.redis.scan_iter(f"{keys.ROOT}*") if cron.redis.ttl(key) == -1]
        assert all(name.startswith(tuple(keys.PERSISTENT)) for name in names), f"keys without TTL: {names}"


@pytest.fixture
def cron(make_cron: Callable[..., Cron]) -> Cron:
    """An empty Redis with the scripts and the default settings."""
    return make_cron()


@pytest.fixture
def rig() -> Iterator[MakeRig]:
    """Makes windows."""
    made: list[Rig] = []

    def make(*args: Any, **kwargs: Any) -> Rig:
        made.append(Rig(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        with closing(one.resolver):
            pass


@pytest.fixture
def network() -> Iterator[Network]:
    """120 sites on 4 addresses, and walkers for them."""
    made = Network()
    yield made
    for walk in made.walks:
        with closing(walk.resolver):
            pass
