"""ORIGIN_CONCURRENCY holds for the whole run: walkers share it, whoever comes and goes."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jobs.scripts import Claimed
from tests.unit.fakes import Cron, changed, kept


@dataclass
class Model:
    """A walker as far as its share goes: how much it may have in flight, and has, to the one origin server."""

    share: int = 0
    using: int = 0
    held: list[Claimed] = field(default_factory=list)


class Shares(RuleBasedStateMachine):
    """Walkers join, step, start and finish requests and leave, in any order."""

    origin = 3

    def __init__(self) -> None:
        super().__init__()
        self.cron = Cron(origin_concurrency=self.origin)
        self.run_id = self.cron.running(*[1] * 30)
        self.walkers: dict[str, Model] = {"walker": Model()}

    def step(self, name: str, **arguments: Any) -> None:
        model = self.walkers[name]
        held = {claim.page: claim for claim in model.held}
        arguments = {"using": model.using, "origin": self.origin, "kept": kept(model.held), **arguments}
        reply = self.cron.step(self.run_id, name, **arguments)
        assert reply.status == "running"
        model.share = reply.share
        model.held = [claim for page, claim in held.items() if page not in reply.lost] + list(reply.claimed)

    @rule(name=st.sampled_from("abyz"))
    def join(self, name: str) -> None:
        if name not in self.walkers:
            assert self.cron.start(self.run_id, name) == "walk"
            self.walkers[name] = Model()
            self.step(name, want=1)

    @rule(data=st.data(), want=st.integers(0, 2))
    @precondition(lambda self: self.walkers)
    def report(self, data: st.DataObject, want: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.walkers)))
        self.step(name, want=want)
        if self.walkers[name].share == 0 and self.walkers[name].using == 0:
            assert self.walkers[name].held == [], "batches would be held for ever by one who may not walk"

    @rule(data=st.data(), full=st.booleans())
    @precondition(lambda self: self.walkers)
    def go_on(self, data: st.DataObject, full: bool) -> None:
        model = self.walkers[data.draw(st.sampled_from(sorted(self.walkers)))]
        model.using = max(model.using, model.share) if full else model.using // 2

    @rule(data=st.data())
    @precondition(lambda self: self.walkers)
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.walkers)))
        self.walkers[name].using = 0
        self.step(name, bye=True)
        del self.walkers[name]

    @invariant()
    def never_more_than_the_setting_in_flight(self) -> None:
        assert sum(max(model.share, model.using) for model in self.walkers.values()) <= self.origin

    def teardown(self) -> None:
        """Once everybody reports, idle, whoever holds batches may walk them, and together they have all of it."""
        for model in self.walkers.values():
            model.using = 0
        for _ in range(3):
            for name in self.walkers:
                self.step(name)
        holders = [model for model in self.walkers.values() if model.held]
        assert all(model.share for model in holders)
        assert sum(model.share for model in self.walkers.values()) == (self.origin if holders else 0)


TestShares = Shares.TestCase
TestShares.settings = hypothesis_settings(max_examples=40, stateful_step_count=25, deadline=None, database=None)


def test_what_is_in_flight_above_a_smaller_share_still_counts() -> None:
    """A second walker gets only what has really been freed."""
    cron = Cron(origin_concurrency=4)
    run_id = cron.running(9, 9, 9)
    mine = kept(cron.step(run_id, "walker", want=1, origin=4).claimed)
    cron.start(run_id, "other")
    assert cron.step(run_id, "other", want=1, origin=4).share == 0
    assert cron.step(run_id, "walker", kept=mine, using=4, origin=4).share == 2
    assert cron.step(run_id, "other", want=1, origin=4).share == 0
    cron.step(run_id, "walker", kept=mine, using=3, origin=4)
    reply = cron.step(run_id, "other", want=1, origin=4)
    assert reply.share == 1
    cron.step(run_id, "walker", kept=mine, using=1, origin=4)
    assert cron.step(run_id, "other", kept=kept(reply.claimed), origin=4).share == 2


def test_a_walker_left_without_a_share_hands_its_batches_on() -> None:
    """With ORIGIN_CONCURRENCY=1 a second walker may get all of it; the first must not sit on its batches."""
    cron = Cron(origin_concurrency=1)
    run_id = cron.running(2, 2, 2, walker="z")
    first = cron.step(run_id, "z", want=2, origin=1)
    assert first.share == 1
    cron.start(run_id, "a")
    assert cron.step(run_id, "a", want=1, origin=1).share == 0
    draining = cron.step(run_id, "z", kept=kept(first.claimed), using=1, origin=1)
    assert (draining.share, draining.lost) == (0, []), "one request is still in flight"
    half = changed(first.claimed[0], "d.")
    left = cron.step(run_id, "z", changed=[half], kept=kept(first.claimed[1:]), using=0, origin=1)
    assert sorted(left.lost) == [0, 1]
    taken = cron.step(run_id, "a", want=2, origin=1)
    assert (taken.share, [(c.page, c.out) for c in taken.claimed]) == (1, [(0, "d."), (1, "..")])


def test_a_walker_with_nothing_to_walk_leaves_its_share_to_the_others() -> None:
    """All batches are held by one: a second walker has no share, and the first has all of it."""
    cron = Cron(origin_concurrency=8)
    run_id = cron.running(2, 2, walker="z")
    held = cron.step(run_id, "z", want=2).claimed
    cron.start(run_id, "a")
    assert cron.step(run_id, "a", want=1).share == 0
    assert cron.step(run_id, "z", kept=kept(held)).share == 8
    cron.step(run_id, "z", kept=kept(held), bye=True)
    taken = cron.step(run_id, "a", want=2)
    assert (taken.share, len(taken.claimed)) == (8, 2)
