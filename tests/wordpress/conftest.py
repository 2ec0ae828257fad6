import os
from collections.abc import Iterator

import pytest

from tests.unavailable import unavailable
from tests.wordpress.build import missing
from tests.wordpress.network import WordPressNetwork


@pytest.fixture(scope="session")
def wordpress() -> Iterator[WordPressNetwork]:
    """A started network, one for the whole session; `arm` it first."""
    ci = os.environ.get("CI", "")
    if absent := missing():
        unavailable(f"WordPress tests: {', '.join(absent)} not installed: run `make test-system` as root", ci)
    if os.geteuid() != 0:
        unavailable("WordPress tests: must run as root, as `make test-system`", ci)
    with WordPressNetwork() as network:
        yield network
