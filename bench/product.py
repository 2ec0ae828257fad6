"""The product as a bench uses it: a Valkey server, the settings' defaults, and walks in a process of their own."""

import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from redis import Redis

from jobs import admission, runs
from jobs.admission import Trigger
from jobs.runs import Run
from jobs.world import World, build
from service.embedded import EmbeddedValkey


@dataclass(frozen=True)
class Walked:
    """`seconds`: from the call of the walk to its end. `peak`: bytes that the walking process had at most."""

    run: Run
    seconds: float
    peak: int


@dataclass(frozen=True)
class Product:
    """`environ`: what a process of it needs. `folder`: a place for files."""

    environ: dict[str, str]
    redis: Redis
    folder: Path

    def sites(self, urls: Iterable[str]) -> None:
        """Let it have these sites, as `wp site list` prints them."""
        path = self.folder / "sites.csv"
        path.write_text("blog_id,url\n" + "".join(f"{number},{url}\n" for number, url in enumerate(urls, 1)))
        self.set(sites=path)

    def set(self, **settings: object) -> None:
        """As in Stack.set of the tests."""
        self.environ.update({f"ALL_SITES_CRON_{name.upper()}": str(value) for name, value in settings.items()})

    def walk(self, before: Callable[[], None] | None = None) -> Walked:
        """A whole run by one walker, in a process of its own. `before` is called in it first."""
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            run_id, seconds, peak = pool.apply(_walk, (self.environ, before))
        return Walked(runs.read(self.redis, run_id), seconds, peak)


def _walk(environ: dict[str, str], before: Callable[[], None] | None) -> tuple[str, float, int]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    if before:
        before()
    world = build(environ)
    run_id, walker = admit(world)
    began = time.perf_counter()
    world.walk(run_id, walker, stop=lambda: False)
    seconds = time.perf_counter() - began
    return run_id, seconds, peak_memory()


def peak_memory() -> int:
    """Bytes; of getrusage's figure a parent's memory is part."""
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(peak[1]) * 1024 if peak else 0


def admit(world: World) -> tuple[str, str]:
    """A run started for this process to walk, past any cooldown: (run id, walker's name)."""
    trigger = Trigger("here", "cli", "bench", cooldown=0)
    arguments, walker = admission.request(trigger)
    admitted = admission.decide(world.scripts.admit(arguments), trigger, walker)
    return admitted.run_id, admitted.walker


@contextmanager
def product(**settings: Any) -> Iterator[Product]:
    """A fresh one on loopback, with a Valkey server of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with EmbeddedValkey.start(folder / "v") as server, Redis.from_url(server.url) as redis:
            environ = {"PATH": os.environ["PATH"], "REDIS_URL": server.url}
            made = Product(environ, redis, folder)
            made.set(auth_token="bench", allowed_networks="127.0.0.0/8", rate_limit_seconds=0)
            made.set(**settings)
            yield made
