"""A run that is cancelled: at once while it waits, else when the last walker is out (CONTRACT section 1)."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs import keys, scripts
from jobs.admission import fresh_job
from jobs.outcomes import Outcome
from tests.unit.fakes import Cron, append, changed, letters, pairs
from tests.unit.walker_rig import Network

MakeCron = Callable[..., Cron]


def cancel(cron: Cron, run_id: str) -> str:
    script = cron.redis.register_script(scripts.text("cancel", cron.settings))
    return str(script(args=[f'{{"id": "{run_id}", "by": "ops"}}']).decode())


def sweep(cron: Cron) -> str:
    return cron.scripts.sweep(**fresh_job())[0]


def test_a_run_that_waits_is_cancelled_at_once(cron: Cron) -> None:
    """Its job is gone, its claim on the cooldown given back; another run may come."""
    run_id = cron.trigger().run_id
    assert cancel(cron, run_id) == "cancelled"
    run = cron.run(run_id)
    assert (run.status, run.reason, run.message) == ("cancelled", "cancelled", "The run was cancelled by ops.")
    assert cron.jobs() == []
    assert not list(cron.redis.scan_iter("rq:job:*"))
    assert cron.redis.hget(keys.METRICS, "runs:cancelled") == b"1"
    assert cron.trigger().what == "queued"


def test_the_lock_of_another_run_stays(cron: Cron) -> None:
    """A run that waits has none."""
    run_id = cron.trigger().run_id
    cron.redis.set(keys.LOCK, "another", px=60_000)
    assert cancel(cron, run_id) == "cancelled"
    assert cron.redis.get(keys.LOCK) == b"another"


def test_what_has_ended_cannot_be_cancelled(cron: Cron) -> None:
    """Nor what is not known; neither is changed."""
    run_id = cron.trigger().run_id
    assert [cancel(cron, run_id), cancel(cron, run_id), cancel(cron, "0" * 16)] == ["cancelled", "ended", "gone"]
    assert cron.redis.hget(keys.METRICS, "runs:cancelled") == b"1"
    assert not cron.redis.exists(keys.run("0" * 16))


def test_walkers_are_told_in_their_next_step_and_the_last_one_out_ends_it(cron: Cron) -> None:
    """What they have in flight is stored; nobody claims, lists, tries again or joins."""
    run_id = cron.running(3, 3, 3, walker="one")
    cron.start(run_id, "two")
    first = cron.step(run_id, "one", want=1).claimed[0]
    second = cron.step(run_id, "two", want=1).claimed[0]
    assert [cancel(cron, run_id), cancel(cron, run_id)] == ["asked", "asked"]
    told = cron.step(run_id, "one", changed=[changed(first, "d..")], want=9, retries=1)
    assert (told.status, told.cancelled, told.claimed, told.backlog, told.retries) == ("running", True, [], 0, 0)
    assert cron.start(run_id, "three") == "ended"
    assert cron.step(run_id, "one", changed=[changed(first, "dn.")], bye=True, attempted=2).status == "running"
    assert sweep(cron) == "fine"
    last = cron.step(run_id, "two", changed=[changed(second, ".t.")], bye=True, attempted=1)
    assert (last.status, last.finished) == ("cancelled", True)
    run = cron.run(run_id)
    assert (run.status, letters(run)) == ("cancelled", {Outcome.DISPATCHED: 1, Outcome.DNS: 1, Outcome.TIMEOUT: 1})
    assert not cron.redis.exists(keys.LOCK, keys.ACTIVE, f"{keys.run(run_id)}:pages")
    assert cron.redis.exists(keys.COOLDOWN), "it sent something"
    assert cron.jobs() == []


def test_the_listing_stops(cron: Cron) -> None:
    """What was read and not yet taken is forgotten, and nobody gets the listing's lease."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "one")
    lister = cron.step(run_id, "one", want=1).lister
    assert lister
    cancel(cron, run_id)
    told = cron.step(run_id, "one", lister=lister[0], append=append([pairs(3)]), want=1)
    assert (told.listing, told.lister, told.sites) == (False, None, 0)


def die(cron: Cron, run_id: str) -> None:
    cron.expire_leases(run_id, "one")


@pytest.mark.parametrize("found_by", [sweep, lambda cron: cron.start(cron.redis.get(keys.ACTIVE).decode(), "new")])
def test_a_walker_that_dies_meanwhile_does_not_keep_it(cron: Cron, found_by: Callable[[Cron], str]) -> None:
    """The sweep, or who comes to walk it, ends it; that is no crash."""
    run_id = cron.running(3, walker="one")
    cancel(cron, run_id)
    assert found_by(cron) in ("fine", "ended")
    assert cron.run(run_id).status == "running", "it may still be at work"
    die(cron, run_id)
    assert found_by(cron) in ("none", "ended")
    assert (cron.run(run_id).status, cron.run(run_id).crashes) == ("cancelled", 0)


def test_a_run_that_nobody_walks_is_ended_by_the_cancel_itself(make_cron: MakeCron) -> None:
    """Also where there is no queue and nobody would come."""
    cron = make_cron(use_redis_queue="false")
    run_id = cron.running(3, walker="one")
    die(cron, run_id)
    assert cancel(cron, run_id) == "cancelled"


def test_the_same_walker_again_is_out(cron: Cron) -> None:
    """A job that RQ gives out again after its worker died."""
    run_id = cron.running(3, walker="one")
    cancel(cron, run_id)
    assert cron.start(run_id, "one", again=True) == "ended"
    assert cron.run(run_id).status == "cancelled"


def test_what_was_triggered_before_is_verified_and_told_of_its_site(cron: Cron) -> None:
    """Also of batches that are not done; of the sites that had no turn nothing is written."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "one")
    pages: Any = [[[*site, 1_700_000_000] for site in pairs(3, first=first)] for first in (1, 4)]
    cron.list_pages(run_id, "one", pages)
    claim = cron.step(run_id, "one", want=1).claimed[0]
    cancel(cron, run_id)
    cron.step(run_id, "one", changed=[changed(claim, "d.n")], bye=True, attempted=2)
    run = cron.run(run_id)
    assert (run.status, run.verification) == ("cancelled", "pending")
    assert cron.redis.llen(keys.unverified(run_id)) == 1
    assert b'"1"' in cron.redis.lindex(keys.unverified(run_id), 0)
    assert cron.redis.hkeys(keys.site("1")) == [b"1", b"3"]
    assert cron.redis.zscore(keys.FAILING, "3")


def test_the_cursor_of_a_capped_run_stays(cron: Cron) -> None:
    """Its sites were not all served: the next run begins where this one did."""
    cron.redis.set(keys.CURSOR, "40")
    run_id = cron.running(3, walker="one", cap=3)
    cancel(cron, run_id)
    cron.step(run_id, "one", bye=True)
    assert (cron.run(run_id).status, cron.redis.get(keys.CURSOR)) == ("cancelled", b"40")
    assert not cron.redis.exists(keys.COOLDOWN), "it sent nothing"


def test_a_walker_drains_what_is_in_flight_however_long_it_takes(network: Network) -> None:
    """Its answers are stored, failures settled, and nothing new is started; its lease is renewed meanwhile."""
    run_id = network.trigger()
    last: tuple[float, dict[str, Any]] = (25.3, {"error": "tls", "passing": True})
    walk = network.walk(lambda url: last if url.endswith("-1") else (20.0, {}))
    steps = walk.scripts.step

    def step(**arguments: Any) -> Any:
        if walk.clock.time > 1003 and not network.cron.get(run_id, "cancelled_by"):
            cancel(network.cron, run_id)
        return steps(**arguments)

    walk.scripts.step = step  # type: ignore[method-assign]
    reply = walk.walk(run_id)
    assert (reply.status, reply.finished) == ("cancelled", True)
    assert len(walk.triggered) == walk.engine.most[""] < 120
    run = network.cron.run(run_id)
    assert (run.count, run.total("failed"), run.retries) == (len(walk.triggered), 1, 0)
    assert walk.scripts.steps > 40, "some two a second"
