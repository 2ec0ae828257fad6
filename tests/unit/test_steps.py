"""The scripts a walk is made of, start and step: claims, fences, leases, crashes."""

import pytest

from jobs import keys
from jobs.outcomes import Outcome
from tests.unit.fakes import Cron, append, changed, kept, letters, pairs

# Claims and fences


def test_a_walker_is_given_the_next_batches_with_all_it_needs(cron: Cron) -> None:
    """In order, no batch twice, each with its sites, its bytes and a token of its own."""
    run_id = cron.running(2, 3, 1)
    first = cron.step(run_id, "walker", want=2).claimed
    second = cron.step(run_id, "walker", want=2, kept=kept(first)).claimed
    assert [(claim.page, claim.out) for claim in [*first, *second]] == [(0, ".."), (1, "..."), (2, ".")]
    assert first[1].sites == pairs(3, first=101)
    assert len({claim.token for claim in [*first, *second]}) == 3
    assert cron.step(run_id, "walker", want=2, kept=kept([*first, *second])).claimed == []


def test_two_walkers_are_given_different_batches(cron: Cron) -> None:
    """Each claims what the other has not."""
    run_id = cron.running(1, 1)
    cron.start(run_id, "other")
    mine = cron.step(run_id, "walker", want=1).claimed
    theirs = cron.step(run_id, "other", want=2).claimed
    assert [claim.page for claim in [*mine, *theirs]] == [0, 1]


def test_fence_numbers_only_rise(cron: Cron) -> None:
    """Each claim, of batches and of the listing, has a higher one than all before it."""
    run_id = cron.running(1, 1, 1)
    fences = []
    for _ in range(4):
        claims = cron.step(run_id, "walker", want=1).claimed
        fences += [int(claim.token.rpartition("#")[2]) for claim in claims]
        cron.expire_leases(run_id, "walker")
    assert fences == sorted(set(fences))
    assert len(fences) == 4


def test_what_a_walker_says_of_a_lost_batch_is_ignored(cron: Cron) -> None:
    """Its bytes are not stored, its counts not moved, its failures not kept; it is told which ones it lost."""
    run_id = cron.running(2)
    old = cron.step(run_id, "walker", want=1).claimed[0]
    cron.start(run_id, "other")
    cron.expire_leases(run_id, "walker")
    new = cron.step(run_id, "other", want=1).claimed[0]
    assert (new.page, new.out) == (old.page, "..")
    report = changed(old, "nd", _1=["http://a", "failed", "dns", "gone"])
    reply = cron.step(run_id, "walker", changed=[report], want=1)
    assert (reply.lost, reply.claimed) == ([0], [])
    assert letters(cron.run(run_id)) == {}
    assert not cron.redis.exists(keys.failures(run_id))
    assert cron.step(run_id, "other", changed=[changed(new)]).finished
    assert letters(cron.run(run_id)) == {Outcome.DISPATCHED: 2}


def test_a_lost_batch_is_reported_though_nothing_changed_in_it(cron: Cron) -> None:
    """Renewing a lease checks the token, too."""
    run_id = cron.running(2)
    old = cron.step(run_id, "walker", want=1).claimed
    cron.start(run_id, "other")
    cron.expire_leases(run_id, "walker")
    cron.step(run_id, "other", want=1)
    assert cron.step(run_id, "walker", kept=kept(old)).lost == [0]


def test_another_walker_takes_up_a_batch_from_its_last_checkpoint(cron: Cron) -> None:
    """Only the sites without an outcome are still to do."""
    run_id = cron.running(4)
    old = cron.step(run_id, "walker", want=1).claimed[0]
    cron.step(run_id, "walker", changed=[changed(old, "d.t.")])
    cron.expire_leases(run_id, "walker")
    cron.start(run_id, "other")
    assert cron.step(run_id, "other", want=1).claimed[0].out == "d.t."


# Counting


@pytest.mark.parametrize("out", ["dd..", "ddnt"])
def test_the_same_step_sent_twice_counts_once(cron: Cron, out: str) -> None:
    """When the answer was lost, the walker sends it again: half-done and done batches alike."""
    run_id = cron.running(4, 1)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    for _ in range(2):
        cron.step(run_id, "walker", changed=[changed(claim, out)])
    assert cron.run(run_id).count == 4 - out.count(".")
    assert cron.run(run_id).batches_done == int("." not in out)


def test_a_listing_sent_twice_is_appended_once(cron: Cron) -> None:
    """It names the cursor it follows."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "walker")
    lister = cron.step(run_id, "walker", want=1).lister
    assert lister
    for _ in range(2):
        cron.step(run_id, "walker", lister=lister[0], append=append([pairs(3)], after=""))
    assert (cron.run(run_id).sites, cron.run(run_id).batches) == (3, 1)
    reply = cron.step(run_id, "walker", lister=lister[0], append=append([pairs(2, first=4)], after="3"))
    assert (reply.sites, cron.get(run_id, "cursor")) == (5, "5")


def test_later_outcomes_of_a_batch_are_added_to_earlier_ones(cron: Cron) -> None:
    """Counts are the difference to what is stored."""
    run_id = cron.running(3)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    for out in ("d..", "dt.", "dtn"):
        cron.step(run_id, "walker", changed=[changed(claim, out)])
    assert letters(cron.run(run_id)) == {Outcome.DISPATCHED: 1, Outcome.TIMEOUT: 1, Outcome.DNS: 1}


def test_an_outcome_that_is_corrected_is_counted_anew(cron: Cron) -> None:
    """The old one is taken off, so that the sum stays the number of sites."""
    run_id = cron.running(2)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    for out in ("t.", "d."):
        cron.step(run_id, "walker", changed=[changed(claim, out)])
    assert letters(cron.run(run_id)) == {Outcome.DISPATCHED: 1}


def test_failing_sites_are_kept_up_to_a_cap(cron: Cron, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts go on; a network that is down does not fill Redis."""
    monkeypatch.setattr(keys, "MOST_FAILURES", 3)
    small = Cron()
    run_id = small.running(5)
    claim = small.step(run_id, "walker", want=1).claimed[0]
    failures = {f"_{n}": [f"http://{n}", "failed", "dns", "unknown"] for n in range(1, 6)}
    small.step(run_id, "walker", changed=[changed(claim, "nnnnn", **failures)])
    run = small.run(run_id)
    assert (run.errors, run.failures_total) == (5, 3)
    assert run.failures[0].detail == "unknown"


# Leases, farewells, crashes


@pytest.mark.parametrize("where", ["kept", "changed"])
def test_a_walker_that_leaves_gives_its_batches_back_at_once(cron: Cron, where: str) -> None:
    """The next walker need not wait for a lease to run out, and a farewell is no crash."""
    run_id = cron.running(2)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    report = {"kept": kept([claim])} if where == "kept" else {"changed": [changed(claim, "d.")]}
    cron.step(run_id, "walker", bye=True, **report)
    cron.start(run_id, "other")
    assert [c.page for c in cron.step(run_id, "other", want=1).claimed] == [0]
    assert cron.run(run_id).crashes == 0


def test_the_last_walker_to_leave_leaves_a_job_behind(cron: Cron) -> None:
    """Else nobody would go on before the sweep."""
    run_id = cron.running(2)
    cron.redis.delete("rq:queue:all-sites-cron")
    cron.redis.hset(keys.run(run_id), "spare_ms", 0)
    cron.step(run_id, "walker", bye=True)
    assert len(cron.jobs()) == 1


def test_leases_are_renewed_by_each_step(cron: Cron) -> None:
    """Of batches, of the walker and of the run: LOCK_TIMEOUT from now."""
    run_id = cron.running(2)
    claims = cron.step(run_id, "walker", want=1).claimed
    cron.redis.pexpire(keys.LOCK, 100)
    cron.redis.zadd(f"{keys.run(run_id)}:leases", {"0": cron.now() + 100})
    cron.redis.zadd(f"{keys.run(run_id)}:walkers", {"walker": cron.now() + 100})
    cron.step(run_id, "walker", kept=kept(claims))
    assert cron.redis.zscore(f"{keys.run(run_id)}:leases", "0") > cron.now() + 10_000
    assert 10_000 < cron.redis.pttl(keys.LOCK) <= 15_000
    assert cron.redis.zscore(f"{keys.run(run_id)}:walkers", "walker") > cron.now() + 10_000


def test_a_walker_that_was_replaced_is_told_so(cron: Cron) -> None:
    """Its lease ran out and another has started since: it stops, the run does not."""
    run_id = cron.running(2)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    cron.expire_leases(run_id, "walker")
    cron.start(run_id, "other")
    assert cron.step(run_id, "walker", changed=[changed(claim)]).status == "expelled"
    assert cron.run(run_id).status == "running"
    assert cron.run(run_id).count == 0


def test_a_walker_whose_lease_ran_out_unnoticed_goes_on(cron: Cron) -> None:
    """Nobody took its place: it takes the lock again and has lost nothing."""
    run_id = cron.running(2)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    cron.expire_leases(run_id, "walker")
    assert cron.step(run_id, "walker", changed=[changed(claim)]).finished


def test_a_walker_stops_when_another_run_holds_the_lock(cron: Cron) -> None:
    """There is never a second run beside it."""
    run_id = cron.running(2)
    cron.redis.set(keys.LOCK, "another", px=10_000)
    assert cron.step(run_id, "walker", want=1).status == "expelled"
    assert cron.start(run_id, "other") == "busy"
    assert cron.redis.get(keys.LOCK) == b"another"


def test_the_third_crash_ends_the_run(cron: Cron) -> None:
    """As failed, reason crashed_3_times, whether the same job comes back or a new walker finds a dead one."""
    run_id = cron.running(2)
    assert cron.start(run_id, "walker", again=True) == "walk"
    cron.expire_leases(run_id, "walker")
    assert cron.start(run_id, "other") == "walk"
    assert cron.run(run_id).crashes == 2
    assert cron.start(run_id, "other", again=True) == "ended"
    run = cron.run(run_id)
    assert (run.status, run.reason) == ("failed", "crashed_3_times")
    assert not cron.redis.exists(keys.LOCK, keys.ACTIVE)


def test_walkers_that_die_together_are_one_crash(cron: Cron) -> None:
    """A machine with three workers that loses power must not end the run: starts that replace are counted."""
    run_id = cron.running(1, 1, 1)
    cron.start(run_id, "two")
    cron.start(run_id, "three")
    for walker in ("walker", "two", "three"):
        cron.step(run_id, walker, want=1)
    cron.expire_leases(run_id, "walker", "two", "three")
    assert cron.start(run_id, "four") == "walk"
    assert cron.run(run_id).crashes == 1
    assert len(cron.step(run_id, "four", want=9).claimed) == 3


def test_a_job_that_comes_back_frees_its_own_batches(cron: Cron) -> None:
    """RQ gives it to another worker in some 9 s, before its leases run out."""
    run_id = cron.running(2)
    old = cron.step(run_id, "walker", want=1).claimed[0]
    assert cron.start(run_id, "walker", again=True) == "walk"
    new = cron.step(run_id, "walker", want=1).claimed[0]
    assert new.page == old.page
    assert cron.step(run_id, "walker", kept=kept([old])).lost == [0]


def test_a_walker_meets_a_run_that_is_over_or_unknown(cron: Cron) -> None:
    """A leftover spare job starts and ends."""
    run_id = cron.running(1)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    cron.step(run_id, "walker", changed=[changed(claim)])
    assert cron.start(run_id, "late") == "ended"
    assert cron.step(run_id, "late", want=1).status == "succeeded"
    assert cron.start("no-such-run", "late") == "gone"
    assert cron.step("no-such-run", "late").status == "gone"
    assert not cron.redis.exists(keys.run("no-such-run"))


def test_each_walker_that_starts_leaves_one_spare_while_work_remains(cron: Cron) -> None:
    """So that idle and late workers join; never two at a time."""
    run_id = cron.trigger().run_id
    for _ in range(3):
        (job,) = cron.jobs()
        cron.redis.lpop("rq:queue:all-sites-cron")
        assert cron.start(run_id, job) == "walk"
        assert len(cron.jobs()) == 1
        assert cron.jobs() != [job]
    cron.start(run_id, "here")
    assert len(cron.jobs()) == 1
