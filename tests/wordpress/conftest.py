import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.wordpress.build import missing
from tests.wordpress.network import WordPressNetwork


@pytest.fixture(scope="session")
def wordpress() -> Iterator[WordPressNetwork]:
    """A started network, one for the whole session; `arm` it first."""
    if absent := missing():
        unavailable(f"{', '.join(absent)} not installed: run `make test-system` as root", os.environ.get("CI", ""))
    if os.geteuid() != 0:
        unavailable("must run as root, as `make test-system`", os.environ.get("CI", ""))
    with WordPressNetwork() as network:
        yield network


def unavailable(why: str, ci: str) -> NoReturn:
    """Leaves the test out, but fails it where `ci` (the environment's CI) says that it must run."""
    if ci.lower() in ("1", "true"):
        pytest.fail(f"WordPress tests: {why}")
    pytest.skip(f"WordPress tests: {why}")
