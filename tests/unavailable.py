"""What this machine lacks for a test."""

from typing import NoReturn

import pytest


def unavailable(why: str, ci: str) -> NoReturn:
    """Leaves the test out, but fails it where `ci` (the environment's CI) says that it must run."""
    if ci.lower() in ("1", "true"):
        pytest.fail(why)
    pytest.skip(why)
