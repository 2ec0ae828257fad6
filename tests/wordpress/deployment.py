"""The service beside a WordPress network, as it is deployed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.embedded import EmbeddedValkey
from tests.integration.stack import Stack


@contextmanager
def deployment(tmp_path: Path, **settings: object) -> Iterator[Stack]:
    """Web and one worker from the Procfile, with these settings and no cooldown."""
    with EmbeddedValkey.start(tmp_path / "valkey") as server:
        stack = Stack(server.url, tmp_path)
        stack.set(**settings, rate_limit_seconds=0)
        try:
            stack.web()
            stack.worker()
            yield stack
        finally:
            stack.close()
