"""Verification: what WordPress ran, told from its schedule after the walk (CONTRACT section 5)."""

import pytest

from jobs import health, keys
from jobs.admission import fresh_job
from jobs.scripts import FOLLOW_UP_SECONDS
from jobs.sites import NEVER
from jobs.sources import State
from jobs.verifier import judge
from tests.unit.due_rig import NOW, Schedules, broken_source
from tests.unit.fakes import Clock, Cron


@pytest.fixture
def made() -> Cron:
    return Cron(origin_concurrency=100)


def figures(made: Cron, run_id: str) -> dict[str, int]:
    """The verification of a run, states without a site left out."""
    return {state: n for state, n in made.run(run_id).verified.items() if n}


def waits(made: Cron, name: str) -> int | None:
    """Seconds until the next follow-up of this name."""
    score = made.redis.zscore(keys.FOLLOW_UP, name)
    return None if score is None else round((score - made.now()) / 1000)


def test_sites_whose_events_left_the_schedule_are_verified_in_one_look(made: Cron) -> None:
    """The run's status was final before; its record and each site's health are brought up to date."""
    network = Schedules(120, due=range(1, 121, 2))
    run_id, _ = network.run(made)
    assert (made.run(run_id).status, made.run(run_id).verification) == ("succeeded", "pending")
    assert waits(made, run_id) == 2
    assert network.look(made, run_id, seconds=2) == []
    assert (made.run(run_id).verification, figures(made, run_id)) == ("done", {"verified": 60})
    assert waits(made, run_id) is None
    assert not made.redis.exists(keys.unverified(run_id))
    assert not made.redis.exists(keys.DUE), "what ran is not due"
    record = health.parse("1", made.redis.hget(keys.site("1"), "1"), None)
    assert record is not None
    assert record.verified


def test_a_site_that_answered_and_ran_nothing_is_stuck_after_a_second_trigger(made: Cron) -> None:
    """Not before VERIFY_GRACE, and only that site is triggered again."""
    network = Schedules(3, due=[1, 2, 3])
    network.broken = {"2"}
    run_id, _ = network.run(made)
    assert network.look(made, run_id, seconds=2) == []
    assert figures(made, run_id) == {"verified": 2}
    assert waits(made, run_id) in (65, 66)
    assert network.look(made, run_id, seconds=65) == ["2"]
    assert made.run(run_id).verification == "pending"
    assert waits(made, run_id) in (10, 11)
    assert network.look(made, run_id, seconds=10) == []
    assert (made.run(run_id).verification, figures(made, run_id)) == ("done", {"verified": 2, "stuck": 1})
    assert made.redis.zrange(keys.STUCK, 0, -1) == [b"2"]
    record = health.parse("2", made.redis.hget(keys.site("2"), "2"), NOW - 60)
    assert record is not None
    assert (record.failures, record.reason, record.state(NOW, 21600)) == (1, "stuck", "stuck")


def test_the_second_trigger_may_help(made: Cron) -> None:
    """A fatal error in the first of two callbacks: the second event runs at the second trigger."""
    network = Schedules(1, due=[1])
    network.broken = {"1"}
    run_id, _ = network.run(made)
    network.look(made, run_id, seconds=2)
    network.broken = set()
    assert network.look(made, run_id, seconds=65) == ["1"]
    network.look(made, run_id, seconds=10)
    assert figures(made, run_id) == {"verified": 1}


def test_a_site_whose_cron_is_at_work_is_left_alone(made: Cron) -> None:
    """`doing_cron` younger than 60 s: no second trigger; still so at the last look, it is `working`."""
    network = Schedules(1, due=[1])
    network.locked["1"] = NOW
    run_id, _ = network.run(made)
    triggered = []
    for seconds in (2, 65, 10, 65):
        network.locked["1"] = network.now + seconds - 5
        triggered += network.look(made, run_id, seconds=seconds)
    assert (triggered, figures(made, run_id)) == ([], {"working": 1})
    assert not made.redis.exists(keys.STUCK)


def test_a_held_lock_that_ends_is_followed_by_the_second_trigger(made: Cron) -> None:
    """Somebody's cron held the lock and died: the events run once it is 60 s old."""
    network = Schedules(1, due=[1])
    network.locked["1"] = NOW
    run_id, _ = network.run(made)
    network.look(made, run_id, seconds=2)
    assert network.look(made, run_id, seconds=65) == ["1"]
    network.look(made, run_id, seconds=10)
    assert figures(made, run_id) == {"verified": 1}


def test_a_site_that_left_meanwhile_is_unknown(made: Cron) -> None:
    """The source cannot tell."""
    network = Schedules(2, due=[1, 2])
    run_id, _ = network.run(made)
    network.gone = {"2"}
    network.look(made, run_id, seconds=2)
    assert figures(made, run_id) == {"verified": 1, "unknown": 1}


def test_a_source_that_is_away_is_asked_again(made: Cron) -> None:
    """Nothing is decided meanwhile."""
    network = Schedules(2, due=[1, 2])
    run_id, _ = network.run(made)
    network.fault = broken_source()
    network.look(made, run_id, seconds=2)
    assert (made.run(run_id).verification, figures(made, run_id)) == ("pending", {})
    network.fault = None
    network.look(made, run_id)
    assert figures(made, run_id) == {"verified": 2}


def test_sites_that_failed_have_nothing_to_verify(made: Cron) -> None:
    """They were not triggered; timeouts were."""
    network = Schedules(3, due=[1, 2, 3])
    network.answers = {"1": {"status": 404}, "2": {"error": "timeout"}}
    run_id, _ = network.run(made)
    network.now += 2
    network.due["2"] = NEVER
    network.look(made, run_id)
    assert figures(made, run_id) == {"verified": 2}


@pytest.mark.parametrize("verify", ["auto", "false"])
def test_verify_false_verifies_nothing(verify: str) -> None:
    """Nothing is put aside, nothing waits."""
    made, network = Cron(verify=verify), Schedules(2, due=[1])
    run_id, _ = network.run(made)
    assert bool(made.redis.exists(keys.unverified(run_id))) is (verify == "auto")
    assert made.run(run_id).verification == ("pending" if verify == "auto" else None)


def test_a_look_that_died_is_taken_up_by_the_next_sweep(made: Cron) -> None:
    """The sweep hands it on for a minute at a time; a worker's sweep queues it as a job, once."""
    network = Schedules(1, due=[1])
    run_id, _ = network.run(made)
    assert made.scripts.sweep(**fresh_job())[2] == "", "not yet: WordPress has two seconds"
    made.redis.zadd(keys.FOLLOW_UP, {run_id: 1})
    assert made.scripts.sweep(**fresh_job())[2] == run_id, "no worker is there: the caller may do it"
    assert made.scripts.sweep(**fresh_job())[2] == ""
    for _ in range(2):
        made.redis.zadd(keys.FOLLOW_UP, {run_id: 1})
        assert made.scripts.sweep(worker="one", **fresh_job())[2] == ""
    assert made.jobs() == [f"follow-up-{run_id}"]


def test_without_a_queue_a_worker_leaves_what_follows_to_the_web_process() -> None:
    """USE_REDIS_QUEUE=false while a worker still runs: its heartbeats come before most of the web process's sweeps."""
    made, network = Cron(use_redis_queue="false"), Schedules(1, due=[1])
    run_id, _ = network.run(made)
    made.redis.zadd(keys.FOLLOW_UP, {run_id: 1})
    assert made.scripts.sweep(worker="one", **fresh_job())[2] == ""
    assert made.scripts.sweep(**fresh_job())[2] == run_id


def test_two_processes_that_look_at_the_same_batch_count_it_once(made: Cron) -> None:
    """The second finds another batch at the head of the list."""
    network = Schedules(2, due=[1, 2])
    run_id, _ = network.run(made)
    head = made.redis.lindex(keys.unverified(run_id), 0).decode()
    results = [["1", "http://a", "verified"], ["2", "http://b", "verified"]]
    assert made.scripts.verify(id=run_id, head=head, results=results)
    assert not made.scripts.verify(id=run_id, head=head, results=results)
    assert figures(made, run_id) == {"verified": 2}


def test_a_site_is_not_stuck_without_a_second_trigger(made: Cron) -> None:
    """The process was told to stop when it had sent some of them: the next one sends the others."""
    network = Schedules(20, due=range(1, 21))
    network.broken = set(network.due)
    run_id, _ = network.run(made)
    network.look(made, run_id, seconds=2)
    some = network.look(made, run_id, seconds=65, most=6)
    others = network.look(made, run_id, seconds=10)
    assert set(some) | set(others) == network.due.keys()
    network.look(made, run_id, seconds=10)
    network.look(made, run_id, seconds=65)
    assert figures(made, run_id) == {"stuck": 20}


def test_second_triggers_end_before_another_process_takes_the_look_up(
    made: Cron, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 sites of one server that hang for 10 s: those that it has no time for are triggered by the next look."""
    network, clock = Schedules(50, due=range(1, 51)), Clock()
    monkeypatch.setattr("jobs.verifier.time.monotonic", clock)
    network.broken, network.seconds = set(network.due), 10.0
    run_id, _ = network.run(made)
    network.look(made, run_id, seconds=2)
    made.redis.zadd(keys.FOLLOW_UP, {run_id: made.now() + 1000})  # it waited in the queue since a sweep
    begun = clock.time
    first = network.look(made, run_id, seconds=65, clock=clock)
    assert clock.time - begun < FOLLOW_UP_SECONDS
    assert 0 < len(first) < 50
    assert figures(made, run_id) == {}


def test_the_source_is_asked_of_at_most_a_page_of_sites_at_a_time() -> None:
    """The companion feed refuses more, and batches may be larger."""
    made = Cron(batch_size=1000, concurrency=1000, origin_concurrency=1000)
    network = Schedules(700, due=range(1, 701))
    run_id, _ = network.run(made)
    network.look(made, run_id, seconds=2)
    assert figures(made, run_id) == {"verified": 700}


@pytest.mark.parametrize("look", [0, 1])
def test_a_look_at_a_run_that_is_forgotten_writes_nothing(made: Cron, look: int) -> None:
    """Its record has expired, or all was uninstalled, when a thread or a job comes to it."""
    network = Schedules(2, due=[1, 2])
    network.broken = {"1"}
    run_id, _ = network.run(made)
    for _ in range(look):
        network.look(made, run_id, seconds=2)
    made.redis.delete(keys.run(run_id))
    network.look(made, run_id, seconds=65)
    assert not made.redis.exists(keys.run(run_id))
    made.redis.flushall()
    network.look(made, run_id, seconds=65)
    assert made.redis.keys() == []


@pytest.mark.parametrize(
    ("due", "locked", "tried", "look", "verdict"),
    [
        (NOW + 1, 0, None, 0, "verified"),
        (NOW, 0, None, 0, "later"),
        (NOW, 0, None, 1, "again"),
        (NOW, 0, None, 2, "again"),
        (NOW, 0, None, 3, "unknown"),
        (NOW, NOW + 20, None, 1, "later"),
        (NOW, NOW + 20, None, 3, "working"),
        (NOW, NOW + 10, None, 1, "again"),
        (NOW, NOW + 3600, None, 1, "again"),
        (NOW, 0, NOW + 68, 2, "stuck"),
        (NOW, 0, NOW + 69, 2, "later"),
        (NOW, NOW + 20, NOW + 40, 2, "later"),
    ],
)
def test_what_a_look_comes_to(due: int, locked: float, tried: int | None, look: int, verdict: str) -> None:
    """70 s after the listing; 60 s is WordPress's lock, 2 s what it has to start."""
    entry = ["1", "http://a", NOW] if tried is None else ["1", "http://a", NOW, tried]
    assert judge(entry, State(due, locked), NOW + 70, look) == verdict
