"""The fixtures of the tests in a browser."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import browser, found
from tests.integration.embedded_valkey import persistent_keys, redis_url, valkey
from tests.integration.shared_web import module_network, module_stack, sites, web
from tests.integration.stack import stack
from tests.unavailable import unavailable

__all__ = ["module_network", "module_stack", "persistent_keys", "redis_url", "sites", "stack", "valkey", "web"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's browser; ends with the module, as its event loop would be in the way of others."""
    if found() is None:
        unavailable("browser tests: no Chromium: run `make test-system` as root", os.environ.get("CI", ""))
    with browser() as made:
        yield made
