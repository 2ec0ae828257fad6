"""A network whose schedules are known: sites in memory that run wp-cron.php as WordPress does, under a fake engine."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs import verifier
from jobs.addresses import AddressGuard
from jobs.errors import SourceError
from jobs.settings import Loaded, Settings
from jobs.sites import NEVER, Site
from jobs.sources import DUE_PAGE, SitePage, Source, State
from jobs.world import World
from tests.unit.fakes import Clock, Cron, FakeEngine
from tests.unit.walker_rig import Walk

NOW = 1_800_000_000


class Schedules(Source):
    """`due`: site id → when its next event is due. `locked`: site id → since when its cron runs. As a Source, too.

    `broken`: sites that answer 200 and run nothing. `runs`: what WordPress ran, by site id. `now`: the network's clock.
    `seconds`: how long each answer takes.
    """

    knows_due = True

    def __init__(self, count: int, *, due: Sequence[int] = ()) -> None:
        super().__init__()
        self.now, self.seconds = NOW, 0.05
        self.due = {str(n): NOW - 60 if n in due else NEVER for n in range(1, count + 1)}
        self.locked: dict[str, float] = {}
        self.broken: set[str] = set()
        self.ran = Counter[str]()
        self.answers: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()
        self.fault: Exception | None = None

    def pages(self, after: str, size: int) -> Iterator[SitePage]:
        sites = sorted((self.site(site_id) for site_id in self.due), key=lambda site: site.key)
        left = [site for site in sites if site.key > after]
        for first in range(0, len(left), size):
            page = tuple(left[first : first + size])
            yield SitePage(page, page[-1].key, self.now)

    def site(self, site_id: str) -> Site:
        return Site(site_id, f"http://127.0.0.1:8001/{site_id}", self.due[site_id])

    def states(self, ids: Sequence[str]) -> tuple[int, Mapping[str, State]]:
        assert len(ids) <= DUE_PAGE
        if self.fault:
            raise self.fault
        known = [site_id for site_id in ids if site_id in self.due and site_id not in self.gone]
        return self.now, {site_id: State(self.due[site_id], self.locked.get(site_id, 0.0)) for site_id in known}

    def remaining(self, after: str) -> int | None:
        return sum(self.site(site_id).key > after for site_id in self.due)

    def close(self) -> None:
        pass

    def answer(self, url: str) -> tuple[float, dict[str, Any]]:
        """wp-cron.php of a site: unschedules and runs what is due, unless it is locked."""
        site_id = url.rpartition("/")[2]
        if (
            site_id not in self.broken
            and self.now - self.locked.get(site_id, 0.0) >= 60
            and site_id not in self.answers
        ):
            self.ran[site_id] += (self.due[site_id] or 0) <= self.now
            self.due[site_id] = NEVER
        return self.seconds, self.answers.get(site_id, {})

    def run(self, cron: Cron, *, name: str = "walker") -> tuple[str, list[str]]:
        """A whole run; its id and the ids of the sites that were triggered."""
        run_id = cron.trigger(cooldown=0).run_id
        walk = Walk(cron, self.answer, lambda: self, name)
        walk.walk(run_id)
        return run_id, [url.rpartition("/")[2] for url in walk.triggered]

    def look(
        self, cron: Cron, name: str, *, seconds: int = 0, most: int = 100, clock: Clock | None = None
    ) -> list[str]:
        """A follow-up, `seconds` later, told to stop after `most` triggers; the ids of the sites it triggered."""
        self.now += seconds
        engines: list[FakeEngine] = []

        def engine(_settings: Settings) -> FakeEngine:
            engines.append(FakeEngine(clock or Clock(), self.answer))
            return engines[-1]

        guard = AddressGuard(cron.settings.allowed_networks)
        world = World(Loaded(cron.settings), cron.redis, cron.scripts, guard, lambda: self, engine)
        verifier.follow_up(world, name, stop=lambda: sum(len(made.started) for made in engines) >= most)
        return [url.rpartition("/")[2] for made in engines for _, url, _ in made.started]


def broken_source() -> SourceError:
    """What a source raises that cannot be read just now."""
    return SourceError("the database is away")
