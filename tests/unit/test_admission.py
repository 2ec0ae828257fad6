"""What one press of the button does: the admission script, in the order of CONTRACT section 2."""

import pytest

from jobs import keys
from jobs.admission import How, NothingQueued
from jobs.errors import AlreadyRunning, CoolingDown, Deactivated
from tests.unit.fakes import Cron, changed

QUEUE = "rq:queue:all-sites-cron"
HOWS: tuple[How, ...] = ("defer", "here", "process-queue")


def started_ago(cron: Cron, run_id: str, milliseconds: int) -> None:
    """As if that run had started so long ago."""
    cron.redis.set(keys.COOLDOWN, f"{cron.now() - milliseconds} {run_id}", ex=604800)


def ended(cron: Cron) -> str:
    """A run that has just ended; it triggered its one site."""
    run_id = cron.running(1)
    reply = cron.step(run_id, "walker", want=1)
    done = [{"p": reply.claimed[0].page, "t": reply.claimed[0].token, "o": "d"}]
    assert cron.step(run_id, "walker", changed=done, attempted=1).finished
    return run_id


# The order of the refusals


@pytest.mark.parametrize("how", HOWS)
def test_a_deactivated_service_refuses_before_it_looks_at_anything_else(cron: Cron, how: How) -> None:
    """Even what would be a 409, a join or a 429 is a 503 then."""
    cron.trigger()
    cron.redis.set(keys.DEACTIVATED, 0)
    with pytest.raises(Deactivated, match="activate"):
        cron.trigger(how)


def test_a_deactivation_that_is_over_refuses_nothing(cron: Cron) -> None:
    """`deactivate --until` ends by itself, by the Redis clock, and says until when it holds."""
    cron.redis.set(keys.DEACTIVATED, cron.now() + 60_000)
    with pytest.raises(Deactivated, match=r"until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"):
        cron.trigger()
    cron.redis.set(keys.DEACTIVATED, cron.now() - 1)
    assert cron.trigger().what == "queued"


@pytest.mark.parametrize("how", HOWS)
def test_a_running_run_is_named_in_the_409(cron: Cron, how: How) -> None:
    """It comes before the cooldown, which that run also claimed; asking again makes sense within a lease."""
    run_id = cron.running(1)
    with pytest.raises(AlreadyRunning) as caught:
        cron.trigger(how)
    assert caught.value.run_id == run_id
    assert 1 <= caught.value.retry_after <= 15
    assert not caught.value.orphaned


def test_a_queued_run_is_joined_before_the_cooldown_is_asked(cron: Cron) -> None:
    """A flood of triggers makes one run: all of them get its id."""
    first = cron.trigger(cooldown=3600)
    assert first.what == "queued"
    joined = [cron.trigger(cooldown=3600) for _ in range(99)]
    assert {(one.what, one.run_id) for one in joined} == {("joined", first.run_id)}
    assert cron.redis.zcard(keys.RUNS) == 1


def test_the_cooldown_refuses_after_the_run_has_ended(cron: Cron) -> None:
    """The refusal has the facts of the 429: seconds left, the setting, the last start, that run."""
    run_id = ended(cron)
    started_ago(cron, run_id, 10_000)
    with pytest.raises(CoolingDown) as caught:
        cron.trigger(cooldown=60)
    assert (caught.value.retry_after, caught.value.cooldown) == (50, 60)
    assert caught.value.run_id == run_id
    assert abs(caught.value.last_run - (cron.now() // 1000 - 10)) <= 1


# Join, and runs that start here


@pytest.mark.parametrize("how", ["here", "process-queue"])
def test_a_queued_run_is_started_here_by_a_caller_that_walks(cron: Cron, how: How) -> None:
    """A sync call, the command line and process-queue take the waiting run over; nobody else starts it again."""
    queued = cron.trigger()
    here = cron.trigger(how)
    assert (here.what, here.run_id) == ("started", queued.run_id)
    assert cron.run(queued.run_id).status == "running"
    assert cron.start(queued.run_id, here.walker) == "walk"
    assert cron.start(queued.run_id, cron.jobs()[0]) == "walk", "its job finds it started, and helps"
    with pytest.raises(AlreadyRunning):
        cron.trigger("here")


def test_a_call_that_walks_here_makes_and_starts_a_run_in_one_go(cron: Cron) -> None:
    """It is running, locked and counted as having a live walker before the caller walks its first step."""
    here = cron.trigger("here")
    assert here.what == "started"
    assert cron.run(here.run_id).status == "running"
    assert cron.redis.get(keys.LOCK) == here.run_id.encode()
    assert 0 < cron.redis.pttl(keys.LOCK) <= 15_000
    with pytest.raises(AlreadyRunning) as caught:
        cron.trigger()
    assert not caught.value.orphaned


def test_process_queue_starts_nothing_of_its_own(cron: Cron) -> None:
    """With nothing queued there is nothing to do; that somebody calls it is remembered for ten minutes."""
    with pytest.raises(NothingQueued):
        cron.trigger("process-queue")
    assert not cron.redis.exists(keys.ACTIVE, keys.COOLDOWN, keys.RUNS)
    assert 590 < cron.redis.ttl(keys.PROCESS_QUEUE_SEEN) <= 600
    assert cron.trigger().workers == 1


def test_process_queue_knows_no_cooldown(cron: Cron) -> None:
    """The run it starts has claimed it."""
    cron.trigger(cooldown=3600)
    assert cron.trigger("process-queue", cooldown=3600).what == "started"


def test_workers_heard_of_in_the_last_ninety_seconds_are_counted(cron: Cron) -> None:
    """A 202 says so when there is none."""
    assert cron.trigger().workers == 0
    cron.redis.zadd(keys.WORKERS, {"dead": cron.now() - 91_000, "alive": cron.now() - 89_000})
    cron.redis.expire(keys.WORKERS, 86400)
    assert cron.trigger().workers == 1


# The cooldown


@pytest.mark.parametrize(
    ("elapsed_ms", "left"),
    [(0, 60), (1_000, 59), (30_500, 30), (58_500, 2), (59_200, None), (59_800, None), (60_000, None), (90_000, None)],
)
def test_the_cooldown_counts_from_the_start_of_the_last_run(cron: Cron, elapsed_ms: int, left: int | None) -> None:
    """In whole seconds, rounded up: who waits as long as told is admitted."""
    started_ago(cron, ended(cron), elapsed_ms)
    if left is None:
        assert cron.trigger(cooldown=60).what == "queued"
        return
    with pytest.raises(CoolingDown) as caught:
        cron.trigger(cooldown=60)
    assert caught.value.retry_after in (left, left - 1), "the clock went on meanwhile"
    started_ago(cron, caught.value.run_id, elapsed_ms + caught.value.retry_after * 1000)
    assert cron.trigger(cooldown=60).what == "queued"


def test_a_cron_line_in_which_every_second_call_comes_a_little_early_misses_none(cron: Cron) -> None:
    """Less than a second before the end is admitted: crontab jitter must not halve the rate."""
    for early in (0, 200, 0, 200):
        started_ago(cron, ended(cron), 60_000 - early)
        assert cron.trigger(cooldown=60).what == "queued"
        cron.redis.delete(keys.ACTIVE)


def test_the_cooldown_is_the_setting_now_not_the_one_at_the_last_run(cron: Cron) -> None:
    """The stored start outlives any setting, so that a longer one holds at once."""
    started_ago(cron, ended(cron), 100_000)
    with pytest.raises(CoolingDown) as caught:
        cron.trigger(cooldown=3600)
    assert caught.value.retry_after in (3499, 3500)
    assert cron.redis.ttl(keys.COOLDOWN) > 604000
    assert cron.trigger(cooldown=100).what == "queued"


@pytest.mark.parametrize("cooldown", [0, -1, -604800])
def test_a_cooldown_of_zero_or_less_is_none(cron: Cron, cooldown: int) -> None:
    """Triggers right behind one another are admitted, even when Redis's clock was set back meanwhile."""
    started_ago(cron, ended(cron), -10_000)
    assert cron.trigger(cooldown=cooldown).what == "queued"


def test_the_cooldown_is_claimed_at_admission(cron: Cron) -> None:
    """Not only when the run starts: one that is queued has it."""
    run_id = cron.trigger().run_id
    assert cron.redis.get(keys.COOLDOWN).decode().endswith(f" {run_id}")


def test_the_cooldown_is_stamped_again_when_a_queued_run_really_starts(cron: Cron) -> None:
    """Else a run that waited an hour would be followed at once by the next."""
    run_id = cron.trigger().run_id
    started_ago(cron, run_id, 3_600_000)
    cron.start(run_id, "walker")
    stamp, _, owner = cron.redis.get(keys.COOLDOWN).decode().partition(" ")
    assert owner == run_id
    assert cron.now() - int(stamp) < 5_000


def fails_without_a_trigger(cron: Cron) -> str:
    run_id = cron.trigger().run_id
    cron.start(run_id, "walker")
    lister = cron.step(run_id, "walker", want=1).lister
    assert lister
    fault = {"reason": "source", "message": "no such file"}
    assert cron.step(run_id, "walker", lister=lister[0], fault=fault).status == "failed"
    return run_id


def test_a_run_that_sent_nothing_gives_its_claim_back(cron: Cron) -> None:
    """After a source error the corrected call need not wait."""
    run_id = fails_without_a_trigger(cron)
    assert cron.run(run_id).reason == "source"
    assert not cron.redis.exists(keys.COOLDOWN)
    assert cron.trigger(cooldown=3600).what == "queued"


def test_a_walker_that_admission_named_and_that_never_came_is_no_crash(cron: Cron) -> None:
    """The answer was lost on its way: whoever takes the run up later has not replaced a dead walker."""
    run_id = cron.trigger("here").run_id
    (name,) = cron.redis.zrange(keys.walkers(run_id), 0, -1)
    cron.redis.zadd(keys.walkers(run_id), {name: 1})
    assert cron.start(run_id, cron.jobs()[0]) == "walk"
    assert cron.run(run_id).crashes == 0


def test_a_run_whose_sites_are_all_blocked_gives_its_claim_back(cron: Cron) -> None:
    """Nothing was sent; once ALLOWED_NETWORKS is set the next call need not wait."""
    run_id = cron.running(2)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    assert cron.step(run_id, "walker", changed=[changed(claim, "bb")]).status == "partial"
    assert not cron.redis.exists(keys.COOLDOWN)


def test_a_failed_run_that_sent_triggers_keeps_its_claim(cron: Cron) -> None:
    """Sites were called: calling them again at once is what the cooldown is against."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "walker")
    lister = cron.step(run_id, "walker", want=1, attempted=3).lister
    assert lister
    fault = {"reason": "source", "message": "page 2 is gone"}
    assert cron.step(run_id, "walker", lister=lister[0], fault=fault).status == "failed"
    with pytest.raises(CoolingDown):
        cron.trigger()


def test_a_claim_of_another_run_is_not_given_back(cron: Cron) -> None:
    """Only the owner's: the start of a later run stands."""
    run_id = cron.trigger().run_id
    cron.start(run_id, "walker")
    lister = cron.step(run_id, "walker", want=1).lister
    assert lister
    started_ago(cron, "another", 1_000)
    cron.step(run_id, "walker", lister=lister[0], fault={"reason": "source", "message": ""})
    assert cron.redis.exists(keys.COOLDOWN)


# A run is never lost


def test_a_trigger_that_meets_a_run_without_a_live_walker_queues_it_again(cron: Cron) -> None:
    """The 409 stays a 409; the job it leaves behind resumes the run."""
    run_id = cron.running(1)
    cron.redis.delete(QUEUE, *[f"rq:job:{job}" for job in cron.jobs()])
    with pytest.raises(AlreadyRunning) as caught:
        cron.trigger()
    assert (caught.value.orphaned, cron.jobs()) == (False, [])
    cron.expire_leases(run_id, "walker")
    with pytest.raises(AlreadyRunning) as caught:
        cron.trigger()
    assert (caught.value.orphaned, caught.value.run_id) == (True, run_id)
    assert caught.value.retry_after >= 1
    assert len(cron.jobs()) == 1
    assert cron.start(run_id, cron.jobs()[0]) == "walk"


def test_a_trigger_that_joins_a_run_whose_job_is_gone_queues_it_again(cron: Cron) -> None:
    """Be it the job's hash or its place in the queue that was lost."""
    run_id = cron.trigger().run_id
    cron.redis.delete(f"rq:job:{cron.jobs()[0]}")
    assert cron.trigger().run_id == run_id
    assert len(cron.jobs()) == 2
    cron.redis.delete(QUEUE)
    cron.redis.hset(keys.run(run_id), "spare_ms", 0)
    assert cron.trigger().run_id == run_id
    assert len(cron.jobs()) == 1


def test_a_run_made_while_another_still_holds_the_lock_waits(cron: Cron) -> None:
    """It can only be the lock of a run whose `active` was lost; there is never a second run, nor an eternal key."""
    cron.redis.set(keys.LOCK, "another", px=60_000)
    with pytest.raises(AlreadyRunning) as caught:
        cron.trigger("here")
    assert caught.value.run_id == "another"
    assert cron.redis.get(keys.LOCK) == b"another"


def test_only_the_last_thousand_runs_are_kept(cron: Cron) -> None:
    """The oldest fall out of the history, as do those past RUN_RETENTION."""
    now = cron.now()
    cron.redis.zadd(keys.RUNS, {f"run-{n}": now - n * 1000 for n in range(1000)} | {"old": now - 700_000_000})
    for gone in ("run-999", "run-0"):
        cron.redis.hset(keys.run(gone), "status", "succeeded")
        cron.redis.hset(keys.failures(gone), "1", "[]")
        cron.redis.expire(keys.run(gone), 600)
        cron.redis.expire(keys.failures(gone), 600)
    run_id = cron.trigger().run_id
    assert cron.redis.zcard(keys.RUNS) == 1000
    assert not cron.redis.exists(keys.run("run-999"), keys.failures("run-999")), "its record goes with it"
    assert cron.redis.exists(keys.run("run-0"), keys.failures("run-0")) == 2
    assert cron.redis.zscore(keys.RUNS, "old") is None
    assert cron.redis.zrank(keys.RUNS, run_id) == 999
