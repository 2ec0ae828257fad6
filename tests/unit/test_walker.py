"""The walker: a whole walk, its listing, its end, and what it says in the log."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from jobs import keys
from jobs.errors import FilterError, SettingsError, SourceError
from jobs.outcomes import Outcome
from tests.unit.fakes import Cron, append, letters, urls
from tests.unit.walker_rig import Network

# A whole walk


def test_a_walk_triggers_every_site_once_and_ends_the_run(network: Network) -> None:
    """Listing, claiming, checkpoints and the end, by one walker alone."""
    walk, run_id = network.walk(), network.trigger()
    reply = walk.walk(run_id)
    assert (reply.status, reply.finished) == ("succeeded", True)
    assert sorted(walk.triggered) == sorted(network.sites)
    assert letters(network.cron.run(run_id)) == {Outcome.DISPATCHED: 120}


def test_the_record_has_what_became_of_each_site(network: Network) -> None:
    """Counts per outcome and the failing sites with their reasons."""
    answers: dict[str, dict[str, Any]] = {"-1": {"error": "timeout"}, "-2": {"status": 404}, "-3": {"error": "reset"}}
    walk = network.walk(lambda url: (0.05, answers.get(url[-2:], {})))
    network.sites = urls(5)
    run_id = network.trigger()
    assert walk.walk(run_id).status == "partial"
    run = network.cron.run(run_id)
    assert [(f.url[-1], f.outcome, f.reason) for f in run.failures] == [
        ("2", "failed", "http_4xx"),
        ("3", "failed", "reset"),
        ("1", "timeout", None),
    ]
    assert (run.count, run.errors, run.total("timeout")) == (5, 2, 1)


def test_a_slow_site_costs_its_own_time_and_no_more(network: Network) -> None:
    """With one in a hundred taking 3 s, a barrier a batch would cost eight times the run."""
    network.sites = urls(1000, addresses=10)
    walk = network.walk(lambda url: (3.0 if url.endswith("50") else 0.05, {}))
    walk.walk(network.trigger())
    assert walk.clock.time - 1000 < 5
    assert len(walk.triggered) == 1000


@pytest.mark.parametrize(("concurrency", "origin"), [(5, 100), (50, 2)])
def test_concurrency_and_share_hold_in_a_walk(network: Network, concurrency: int, origin: int) -> None:
    """And are used."""
    network.cron = Cron(concurrency=concurrency, origin_concurrency=origin)
    walk = network.walk()
    walk.walk(network.trigger())
    assert walk.engine.most.pop("") == min(concurrency, 4 * origin)
    assert max(walk.engine.most.values()) <= origin


@pytest.mark.parametrize(("sites", "batch"), [(4000, 50), (4000, 200), (1000, 10)])
def test_a_walk_needs_few_round_trips(network: Network, sites: int, batch: int) -> None:
    """One in 200 sites or so (4 batches, as the listing reads ahead), never two a batch; besides one each 0.5 s."""
    network.cron = Cron(batch_size=batch, concurrency=100, origin_concurrency=100)
    network.sites = urls(sites, addresses=20)
    walk = network.walk()
    walk.walk(network.trigger())
    steps = walk.scripts.steps - (walk.clock.time - 1000) / 0.5
    assert steps <= 2 * sites / batch + 2
    assert steps <= 2 * sites / min(200, 4 * batch) + 5


# Listing


def test_number_of_sites_caps_the_sites_triggered_exactly_and_goes_on(network: Network) -> None:
    """Batches of 3, a cap of 7, twenty sites: 1-7, 8-14, 15-20, and from the start again."""
    network.cron = Cron(number_of_sites=7, batch_size=3)
    network.sites = urls(20)
    remaining = []
    for expected in (range(7), range(7, 14), range(14, 20), range(7)):
        walk, run_id = network.walk(), network.trigger()
        assert walk.walk(run_id).status == "succeeded"
        assert walk.triggered == [network.sites[i] for i in expected]
        remaining.append(network.cron.run(run_id).remaining)
    assert remaining == [13, 6, 0, 13]


def test_a_lister_that_ended_between_its_last_site_and_the_end_is_replaced(network: Network) -> None:
    """All sites of the cap are listed, but not that they were: the next lister has none left to list, and says so."""
    network.cron = Cron(number_of_sites=4)
    network.sites = urls(6)
    run_id = network.trigger()
    network.cron.start(run_id, "first", cap=4)
    lease = network.cron.step(run_id, "first", want=1).lister
    assert lease
    listing = append([[[str(i + 1), url] for i, url in enumerate(network.sites[:4])]])
    network.cron.step(run_id, "first", lister=lease[0], append=listing | {"cursor": "4".zfill(20)}, bye=True)
    walk = network.walk()
    assert walk.walk(run_id).status == "succeeded"
    run = network.cron.run(run_id)
    assert (walk.triggered, run.count, run.remaining) == (network.sites[:4], 4, 2)


def test_a_cap_of_all_sites_does_not_call_any_twice(network: Network) -> None:
    """The next run starts over instead of finding nothing behind the last."""
    network.cron = Cron(number_of_sites=20)
    network.sites = urls(20)
    for _ in range(2):
        walk = network.walk()
        assert walk.walk(network.trigger()).status == "succeeded"
        assert walk.triggered == network.sites


def test_a_cursor_behind_the_last_site_starts_over(network: Network) -> None:
    """The list has become shorter since the last capped run."""
    network.cron = Cron(number_of_sites=4)
    network.sites = urls(6)
    network.walk().walk(network.trigger())
    network.sites = urls(3)
    walk = network.walk()
    assert walk.walk(network.trigger()).status == "succeeded"
    assert walk.triggered == network.sites


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(SourceError("line 3"), "source"), (FilterError("mine"), "filter"), (SettingsError("SITES is not set"), "source")],
)
def test_a_list_that_cannot_be_read_fails_the_run(network: Network, fault: Exception, reason: str) -> None:
    """With its words; nothing was sent."""
    network.fault = fault
    walk, run_id = network.walk(), network.trigger()
    assert walk.walk(run_id).status == "failed"
    run = network.cron.run(run_id)
    assert (run.reason, run.message, walk.triggered) == (reason, str(fault), [])
    assert not network.cron.redis.exists(keys.COOLDOWN)


def test_an_error_nobody_foresaw_ends_the_run_without_its_words(network: Network) -> None:
    """They may hold anything; the log has them."""
    network.fault = ZeroDivisionError("password")
    walk, run_id = network.walk(), network.trigger()
    with capture_logs() as logs:
        assert walk.walk(run_id).status == "failed"
    assert network.cron.run(run_id).reason == "internal"
    assert "password" not in network.cron.run(run_id).message
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["the listing ended with an error"]


# Stopping


def test_a_walker_asked_to_stop_drains_and_leaves_the_rest_to_the_next(network: Network) -> None:
    """What is in flight is waited for and counted; together they trigger every site once."""
    first, run_id = network.walk(name="first"), network.trigger()
    first.stop = lambda: len(first.triggered) > 60
    assert first.walk(run_id).status == "stopped"
    begun = len(first.triggered)
    assert 60 < begun < 120
    run = network.cron.run(run_id)
    assert (run.status, run.count, run.crashes) == ("running", begun, 0)
    second = network.walk(name="second")
    assert second.walk(run_id).status == "succeeded"
    assert sorted(first.triggered + second.triggered) == sorted(network.sites)


def test_draining_takes_five_seconds_at_most(network: Network) -> None:
    """A site that has not answered by then is triggered again by the next walker: at least once."""
    slow = network.sites[0]
    first, run_id = network.walk(lambda url: (60.0 if url == slow else 0.05, {}), name="first"), network.trigger()
    stopped_at: list[float] = []

    def stop() -> bool:
        if len(first.triggered) > 60:
            stopped_at.append(first.clock.time)
        return bool(stopped_at)

    first.stop = stop
    first.walk(run_id)
    assert first.clock.time - stopped_at[0] == pytest.approx(5.0, abs=0.5)
    second = network.walk(name="second")
    second.walk(run_id)
    assert slow in second.triggered
    assert len(first.triggered + second.triggered) == 121


def test_a_stop_that_came_with_the_last_answers_ends_the_run(network: Network) -> None:
    """The farewell carries them."""
    walk, run_id = network.walk(), network.trigger()
    walk.stop = lambda: len(walk.triggered) == 120
    assert walk.walk(run_id).status == "succeeded"


def test_a_site_that_waits_for_a_retry_is_left_open_at_a_stop(network: Network) -> None:
    """It has not failed yet: the next walker tries it, and only then it is logged."""
    network.sites = urls(1)
    first, run_id = network.walk(lambda _url: (0.4, {"error": "connect"}), name="first"), network.trigger()
    first.stop = lambda: first.engine.in_flight == 0 and bool(first.triggered)
    with capture_logs() as logs:
        assert first.walk(run_id).status == "stopped"
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == []
    assert network.walk(name="second").walk(run_id).status == "succeeded"


def test_a_walker_that_was_replaced_stops_at_once(network: Network) -> None:
    """It triggers nothing more; the run is another's."""
    network.sites = urls(2000, addresses=4)
    walk, run_id = network.walk(), network.trigger()

    def answer(_url: str) -> tuple[float, dict[str, Any]]:
        if len(walk.triggered) == 100:
            network.cron.redis.zrem(f"{keys.run(run_id)}:walkers", "walker")
        return 0.05, {}

    walk.engine.answer = answer
    assert walk.walk(run_id).status == "expelled"
    assert len(walk.triggered) < 1000
    assert network.cron.run(run_id).status == "running"


def test_a_walk_that_may_not_start_triggers_nothing(network: Network) -> None:
    """Another run holds the lock, the run is over, or nobody knows it."""
    run_id = network.trigger()
    network.cron.redis.set(keys.LOCK, "another", px=60_000)
    assert network.walk().walk(run_id).status == "busy"
    network.cron.redis.delete(keys.LOCK)
    network.walk().walk(run_id)
    late = network.walk(name="late")
    assert (late.walk(run_id).status, late.walk("unknown").status, late.triggered) == ("ended", "gone", [])


def test_a_batch_taken_by_another_walker_is_not_gone_on_with(network: Network) -> None:
    """Its fence was passed: answers to come are ignored, sites not yet triggered are left to the other."""
    network.cron = Cron(origin_concurrency=1, batch_size=10)
    network.sites = urls(20)
    walk, run_id = network.walk(), network.trigger()

    def answer(_url: str) -> tuple[float, dict[str, Any]]:
        owners, leases = f"{keys.run(run_id)}:owners", f"{keys.run(run_id)}:leases"
        if len(walk.triggered) == 3:
            network.cron.redis.hset(owners, "0", "other#99")
        if len(walk.triggered) == 10:
            assert not [url for url in walk.triggered[4:] if url in network.sites[:10]]
            network.cron.redis.zadd(leases, {"0": network.cron.now() - 1})
        return 0.2, {}

    walk.engine.answer = answer
    assert walk.walk(run_id).status == "succeeded"
    assert letters(network.cron.run(run_id)) == {Outcome.DISPATCHED: 20}


# The log


def test_problems_of_the_site_list_are_logged_up_to_twenty_and_then_counted(network: Network) -> None:
    """All of them, though a source keeps the texts of its first hundred only."""
    for n in range(130):
        network.problems.add(f"line {n}", "is no URL")
    with capture_logs() as logs:
        network.walk().walk(network.trigger())
    assert sum(entry["event"] == "site list" for entry in logs) == 20
    assert [entry["not_shown"] for entry in logs if entry["event"] == "site list has more problems"] == [110]


def test_failing_sites_are_logged_up_to_twenty(network: Network) -> None:
    """One warning each, with the run's id."""
    walk, run_id = network.walk(lambda _url: (0.05, {"status": 404})), network.trigger()
    with capture_logs() as logs:
        walk.walk(run_id)
    failed = [entry for entry in logs if entry["event"] == "site not dispatched"]
    assert len(failed) == 20
    assert {entry["run_id"] for entry in logs} == {run_id}
