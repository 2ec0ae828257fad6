"""A walker on real scripts, a fake Redis, a fake engine and a clock of its own."""

import random
from collections.abc import Callable
from typing import Any

from jobs.addresses import AddressGuard
from jobs.resolver import Resolver
from jobs.scripts import Scripts, StepReply
from jobs.sites import Site
from jobs.sources import Problems, Source
from jobs.walker import Walker
from tests.unit.fakes import Clock, Cron, FakeEngine, ListSource, urls

Answer = Callable[[str], tuple[float, dict[str, Any]]]


class Watched(Scripts):
    """The scripts, counting steps, and away while `away` says so of the clock."""

    def __init__(self, cron: Cron, clock: Clock) -> None:
        super().__init__(cron.redis, cron.settings)
        self.clock, self.steps = clock, 0
        self.trouble: Callable[[float], Exception | None] = lambda _now: None

    def step(self, **arguments: object) -> StepReply:
        self.steps += 1
        if error := self.trouble(self.clock.time - 1000):
            raise error
        return super().step(**arguments)


class Walk:
    """One walker with its engine. `sites`: what its source lists."""

    def __init__(self, cron: Cron, answer: Answer | None, source: Callable[[], Source], name: str) -> None:
        self.cron, self.name = cron, name
        self.clock = Clock()
        self.engine = FakeEngine(self.clock, answer)
        self.scripts = Watched(cron, self.clock)
        guard = AddressGuard(cron.settings.allowed_networks)
        self.resolver = Resolver(guard, wake=self.engine.wake, clock=self.clock)
        self.stop: Callable[[], bool] = lambda: False
        self._source = source

    def walk(self, run_id: str, *, again: bool = False) -> StepReply:
        walker = Walker(
            run_id,
            self.name,
            self.cron.settings,
            self.scripts,
            self._source,
            self.engine,
            self.resolver,
            stop=lambda: self.stop(),
            clock=self.clock,
            jitter=random.Random(1),
        )
        return walker.walk(again=again)

    @property
    def triggered(self) -> list[str]:
        return [url for _, url, _ in self.engine.started]


class Network:
    """Makes walks over sites that all have the given number; `cron` may be replaced for other settings."""

    def __init__(self) -> None:
        self.cron = Cron(origin_concurrency=100)
        self.sites = urls(120, addresses=4)
        self.fault: Exception | None = None
        self.problems = Problems()
        self.walks: list[Walk] = []

    def source(self) -> Source:
        source = ListSource([Site(str(i + 1), url) for i, url in enumerate(self.sites)], self.fault)
        source.problems = self.problems
        return source

    def walk(self, answer: Answer | None = None, *, name: str = "walker") -> Walk:
        self.walks.append(Walk(self.cron, answer, self.source, name))
        return self.walks[-1]

    def trigger(self) -> str:
        return self.cron.trigger(cooldown=0).run_id
