"""A window with a fake engine, a fake clock and a real resolver (addresses need no look-up)."""

import random
import socket
from collections.abc import Callable, Sequence
from typing import Any

from jobs.addresses import AddressGuard, parse_networks
from jobs.outcomes import Outcome
from jobs.resolver import Resolver
from jobs.scripts import Claimed
from jobs.window import Window
from tests.unit.fakes import Clock, FakeEngine

Answer = Callable[[str], tuple[float, dict[str, Any]]]
FRONT = "http://127.0.0.1:8001/site-0"


class Rig:
    """A window and what it stands on. `settled`: (URL, outcome) in the order of their settling."""

    def __init__(
        self, answer: Answer | None = None, *, concurrency: int = 10, share: int = 8, retries: int = 3
    ) -> None:
        self.clock = Clock()
        self.engine = FakeEngine(self.clock, answer)
        self.looked_up: list[str] = []
        guard = AddressGuard(parse_networks("127.0.0.0/8"))
        self.resolver = Resolver(guard, wake=self.engine.wake, getaddrinfo=self._getaddrinfo, clock=self.clock)
        self.settled: list[tuple[str, Outcome]] = []
        self.details: list[str] = []
        self.window = Window(
            self.engine,
            self.resolver,
            concurrency=concurrency,
            max_retries=retries,
            clock=self.clock,
            jitter=random.Random(1),
            on_failure=self._failed,
        )
        self.window.widen(share)

    def _getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.looked_up.append(host)
        if host.startswith("no"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", ("127.0.0.9", port))]

    def _failed(self, url: str, outcome: Outcome, detail: str) -> None:
        self.settled.append((url, outcome))
        self.details.append(detail)

    def hold(self, *batches: Sequence[str]) -> None:
        """Claim batches of these sites, numbered from 0 on."""
        claims = []
        for page, sites in enumerate(batches):
            pairs = [[f"{page}{index:04}", url] for index, url in enumerate(sites)]
            claims.append(Claimed(page, f"w#{page}", pairs, "." * len(sites)))
        self.window.hold(claims)

    def run(self, seconds: float = 1000, *, grant: int = 1000) -> None:
        """Walk until nothing is left to do or so much of the clock has passed; `grant`: retries granted at a time."""
        end = self.clock.time + seconds
        while self.clock.time < end:
            if self.window.retries_asked:
                self.window.grant_retries(grant)
            self.window.start_ready()
            if self.window.idle:
                return
            until = min(end, self.window.next_retry or end)
            wait = 0.0 if self.window.retries_asked else min(1.0, max(0.0, until - self.clock.time))
            for result in self.engine.poll(wait):
                self.window.take(result)

    def out(self, page: int = 0) -> str:
        return self.window.batches[page].out.decode()


MakeRig = Callable[..., Rig]


def first_fails(fields: dict[str, Any]) -> Answer:
    """Site 0 always answers so, after 0.1 s; the others well."""
    return lambda url: (0.1, fields if url == FRONT else {})
