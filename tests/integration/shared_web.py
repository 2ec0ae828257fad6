"""One web process for all tests of a module that change no setting; each finds Redis empty and every site due."""

from collections.abc import Iterator

import pytest

from service.embedded import EmbeddedValkey
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork, running
from wordpress.demo_sites import Behaviour


@pytest.fixture(scope="module")
def module_network() -> Iterator[DemoNetwork]:
    """Six healthy sites on two addresses."""
    with running(DemoNetwork.plain(6, addresses=2)) as made:
        yield made


@pytest.fixture(scope="module")
def module_stack(
    valkey: EmbeddedValkey, module_network: DemoNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A deployment of one web process with the default settings, less patience."""
    made = Stack(valkey.url, tmp_path_factory.mktemp("web"))
    try:
        made.use(module_network)
        made.set(lock_timeout=2, request_timeout=2, max_retries=0)
        made.web()
        yield made
    finally:
        made.close()


@pytest.fixture
def web(module_stack: Stack, redis_url: str) -> Stack:
    """The module's web process, with nothing in Redis."""
    assert redis_url == module_stack.redis_url
    return module_stack


@pytest.fixture
def sites(web: Stack, module_network: DemoNetwork) -> DemoNetwork:
    """The six sites, all well and due."""
    for site in module_network.sites.all:
        site.behaviour, site.latency_ms = Behaviour.OK, 0
    module_network.arm()
    return module_network
