"""How a walk is listed, capped, retried and ended: the rest of the step script."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs import keys
from jobs.outcomes import Outcome
from jobs.scripts import StepReply
from tests.unit.fakes import Cron, append, changed, pairs

MakeCron = Callable[..., Cron]


# The listing


def lister_of(cron: Cron, run_id: str, walker: str) -> tuple[str, str, int | None] | None:
    lister = cron.step(run_id, walker, want=1).lister
    return lister[:3] if lister else None


def test_one_walker_at_a_time_lists(cron: Cron) -> None:
    """It gets a lease on the listing; another gets it when that has run out, and goes on at the saved cursor."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "one")
    cron.start(run_id, "two")
    first = lister_of(cron, run_id, "one")
    assert first
    assert first[1:] == ("", None)
    assert lister_of(cron, run_id, "two") is None
    reply = cron.step(run_id, "one", lister=first[0], append=append([pairs(3)]))
    assert (reply.listing, reply.sites) == (True, 3)
    cron.redis.hset(keys.run(run_id), "lister_until", cron.now() - 1)
    second = lister_of(cron, run_id, "two")
    assert second
    assert second[1] == "3"
    late = cron.step(run_id, "one", lister=first[0], append=append([pairs(3, first=4)], after="3"))
    assert (late.listing, late.sites) == (False, 3), "its token is not the lister's any more"


def test_a_lister_ahead_of_what_redis_knows_is_replaced_at_once(cron: Cron) -> None:
    """After a failover that lost a page: the next lister, or the same walker, reads it again from the saved cursor."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "one")
    lease = lister_of(cron, run_id, "one")
    assert lease
    cron.step(run_id, "one", lister=lease[0], append=append([pairs(3)]))
    beyond = append([pairs(2, first=6)], after="5", ended=True)
    reply = cron.step(run_id, "one", want=1, lister=lease[0], append=beyond)
    assert reply.lister
    assert (reply.lister[1], reply.sites) == ("3", 3)


def test_a_lister_that_leaves_gives_the_listing_to_the_next(cron: Cron) -> None:
    """What it has read goes with its farewell."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "one")
    cron.start(run_id, "two")
    lease = lister_of(cron, run_id, "one")
    assert lease
    cron.step(run_id, "one", lister=lease[0], append=append([pairs(3)]), bye=True)
    after = cron.step(run_id, "two", want=1)
    assert after.lister
    assert (after.lister[1], after.sites) == ("3", 3)


def test_a_lister_that_crashed_is_replaced_at_once(cron: Cron) -> None:
    """As its batches are."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "one")
    assert lister_of(cron, run_id, "one")
    cron.start(run_id, "one", again=True)
    assert lister_of(cron, run_id, "one")


def test_listing_pauses_while_enough_batches_wait(cron: Cron) -> None:
    """Memory stays flat: nobody gets the listing's lease with 20 unclaimed batches."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "one")
    lease = lister_of(cron, run_id, "one")
    assert lease
    pages = [pairs(1, first=n) for n in range(1, 23)]
    cron.step(run_id, "one", lister=lease[0], append=append(pages))
    cron.redis.hset(keys.run(run_id), "lister_until", 0)
    assert lister_of(cron, run_id, "one") is None
    claims = cron.step(run_id, "one", want=2)
    assert claims.backlog == 19
    assert claims.lister


def test_a_run_does_not_end_while_it_is_being_listed(cron: Cron) -> None:
    """All batches so far being done is not the end."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "one")
    lease = lister_of(cron, run_id, "one")
    assert lease
    claims = cron.step(run_id, "one", lister=lease[0], append=append([pairs(2)]), want=1).claimed
    assert cron.step(run_id, "one", changed=[changed(claims[0])]).status == "running"
    ending = append([], after="2", ended=True)
    assert cron.step(run_id, "one", lister=lease[0], append=ending).status == "succeeded"


# The cap: NUMBER_OF_SITES


def capped_walk(cron: Cron, sites: int, cap: int) -> tuple[str, int | None]:
    """(cursor it was told to go on from, how many sites it was told to list at most); then it lists and ends."""
    run_id = cron.trigger(cooldown=0).run_id
    cron.start(run_id, "walker", cap=cap)
    lease = lister_of(cron, run_id, "walker")
    assert lease
    token, cursor, left = lease
    first = int(cursor or 0) + 1
    count = min(left or sites, sites - first + 1)
    listing = append([pairs(count, first=first)], after=cursor, ended=True)
    listing |= {
        "goes_on": "" if first + count > sites else str(first + count - 1),
        "remaining": sites - first - count + 1,
    }
    claims = cron.step(run_id, "walker", lister=token, append=listing, want=9).claimed
    assert cron.step(run_id, "walker", changed=[changed(claim) for claim in claims]).finished
    assert cron.run(run_id).count == count
    assert cron.run(run_id).remaining == (listing["remaining"] if cap else None)
    return cursor, left


def test_capped_runs_go_on_behind_each_other_and_wrap(cron: Cron) -> None:
    """Ten sites, four a run: 1 to 4, 5 to 8, 9 and 10, 1 to 4; the cursor outlives every run."""
    walks = [capped_walk(cron, 10, 4) for _ in range(4)]
    assert walks == [("", 4), ("4", 4), ("8", 4), ("", 4)]
    assert cron.redis.ttl(keys.CURSOR) == -1


def test_a_walk_without_cap_starts_at_the_beginning(cron: Cron) -> None:
    """And the cursor is forgotten with the cap."""
    capped_walk(cron, 10, 4)
    assert capped_walk(cron, 10, 0) == ("", None)
    assert not cron.redis.exists(keys.CURSOR)


def test_a_capped_run_that_fails_is_walked_again(cron: Cron) -> None:
    """Its sites were not all served: the cursor stays where it was."""
    capped_walk(cron, 10, 4)
    run_id = cron.trigger(cooldown=0).run_id
    cron.start(run_id, "walker", cap=4)
    lease = lister_of(cron, run_id, "walker")
    assert lease
    cron.step(run_id, "walker", lister=lease[0], fault={"reason": "source", "message": ""})
    assert capped_walk(cron, 10, 4)[0] == "4"


def test_the_cap_counts_what_others_have_listed(cron: Cron) -> None:
    """A second lister may list the rest of it, whatever its own setting is."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "one", cap=5)
    cron.start(run_id, "two", cap=99)
    lease = lister_of(cron, run_id, "one")
    assert lease
    cron.step(run_id, "one", lister=lease[0], append=append([pairs(3)]), bye=True)
    second = lister_of(cron, run_id, "two")
    assert second
    assert second[1:] == ("3", 2)


# The retry budget


@pytest.mark.parametrize(("sites", "budget"), [(5, 10), (100, 10), (101, 11), (1000, 100)])
def test_a_run_has_one_retry_budget_for_all_its_walkers(cron: Cron, sites: int, budget: int) -> None:
    """A tenth of its sites; ten in a small one, where a tenth would be next to nothing."""
    run_id = cron.running(sites)
    cron.start(run_id, "other")
    first = cron.step(run_id, "walker", retries=budget - 1).retries
    assert (first, cron.step(run_id, "other", retries=5).retries) == (budget - 1, 1)
    assert cron.step(run_id, "walker", retries=1).retries == 0
    assert cron.run(run_id).retries == budget


# The end


def ending(cron: Cron, out: str) -> StepReply:
    run_id = cron.running(len(out))
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    return cron.step(run_id, "walker", changed=[changed(claim, out)], attempted=1)


@pytest.mark.parametrize(
    ("out", "status"),
    [("ddd", "succeeded"), ("sss", "succeeded"), ("dts", "succeeded"), ("dh", "partial")]
    + [(f"d{outcome}", "partial") for outcome in "nclr45xb"],
)
def test_the_outcomes_decide_the_status(cron: Cron, out: str, status: str) -> None:
    """Timeouts and sites with nothing due are no errors; failed sites and hosts that are down are."""
    assert ending(cron, out).status == status


def test_every_outcome_is_counted_under_its_letter(cron: Cron) -> None:
    """`count` is the sites dealt with, whatever became of them."""
    out = "".join(outcome.value for outcome in Outcome)
    run_id = cron.running(len(out))
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    cron.step(run_id, "walker", changed=[changed(claim, out)])
    run = cron.run(run_id)
    assert run.counts == dict.fromkeys(Outcome, 1)
    assert (run.count, run.errors, run.total("skipped"), run.total("dispatched", "timeout")) == (12, 9, 2, 2)


@pytest.mark.parametrize("reason", ["source", "filter", "internal"])
def test_a_fault_of_the_listing_fails_the_run_when_the_rest_is_done(cron: Cron, reason: str) -> None:
    """What was listed before is walked; then the run is `failed`, with the fault's reason and words."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "walker")
    lease = lister_of(cron, run_id, "walker")
    assert lease
    fault = {"reason": reason, "message": "line 7"}
    reply = cron.step(run_id, "walker", lister=lease[0], append=append([pairs(1)]), fault=fault, want=1)
    assert reply.status == "running"
    assert cron.step(run_id, "walker", changed=[changed(reply.claimed[0])]).status == "failed"
    run = cron.run(run_id)
    assert (run.reason, run.message, run.count) == (reason, "line 7", 1)


def test_a_network_without_public_sites_is_a_failed_run(cron: Cron) -> None:
    """In the plugin's words."""
    run_id = cron.running()
    run = cron.run(run_id)
    assert (run.status, run.reason, run.message) == ("failed", "no_sites", "No public sites found in the network")


def test_only_the_owner_frees_lock_and_active(cron: Cron) -> None:
    """A run that ends after another took over its place touches neither."""
    run_id = cron.running(1)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    cron.redis.set(keys.ACTIVE, "another", ex=60)
    assert cron.step(run_id, "walker", changed=[changed(claim)]).finished
    assert cron.redis.get(keys.ACTIVE) == b"another"
    cron.redis.set(keys.LOCK, "another", px=60_000)
    cron.redis.delete(keys.ACTIVE)
    second = cron.trigger(cooldown=0).run_id
    assert cron.start(second, "walker") == "busy"
    assert cron.redis.get(keys.LOCK) == b"another"
    assert cron.run(second).status == "queued"


def test_times_are_redis_times(cron: Cron) -> None:
    """Queued, started, ended, in that order."""
    run_id = cron.running(1)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    before = cron.run(run_id)
    assert before.ended_ms is None
    cron.step(run_id, "walker", changed=[changed(claim)])
    run: Any = cron.run(run_id)
    assert run.queued_ms <= run.started_ms <= run.ended_ms <= cron.now()
