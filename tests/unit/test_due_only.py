"""Due-only dispatch: a site with nothing due costs no request (CONTRACT section 5)."""

import pytest

from jobs import keys
from jobs.outcomes import Outcome
from tests.unit.due_rig import NOW, Schedules
from tests.unit.fakes import Cron, letters


def cron(**values: object) -> Cron:
    return Cron(**{"origin_concurrency": 100, **values})


@pytest.mark.parametrize("batch", [7, 50])
def test_only_sites_with_a_due_event_are_triggered(batch: int) -> None:
    """300 sites, 9 due: nine requests; the others are `skipped: not_due` and count."""
    made, network = cron(batch_size=batch), Schedules(300, due=range(5, 300, 33))
    run_id, triggered = network.run(made)
    assert sorted(triggered, key=int) == [str(n) for n in range(5, 300, 33)]
    run = made.run(run_id)
    assert (run.status, run.count, run.sites) == ("succeeded", 300, 300)
    assert letters(run) == {Outcome.DISPATCHED: 9, Outcome.NOT_DUE: 291}


def test_a_run_with_nothing_due_is_a_success() -> None:
    """It sends nothing, counts every site and keeps its claim on the cooldown."""
    made, network = cron(), Schedules(120)
    run_id, triggered = network.run(made)
    run = made.run(run_id)
    assert (triggered, run.status, run.count) == ([], "succeeded", 120)
    assert made.redis.exists(keys.COOLDOWN)


def test_due_only_false_triggers_every_site() -> None:
    """As without due times."""
    made, network = cron(due_only="false"), Schedules(60, due=[3])
    _, triggered = network.run(made)
    assert len(triggered) == 60


def test_an_event_due_this_very_second_is_due_and_one_a_second_later_is_not() -> None:
    """As core compares: `$timestamp > $gmt_time` is not due yet."""
    made, network = cron(), Schedules(3)
    network.due |= {"1": NOW, "2": NOW + 1}
    assert network.run(made)[1] == ["1"]


def test_a_site_whose_due_time_is_not_known_is_triggered() -> None:
    """Better a request too many than a site forgotten."""
    made, network = cron(), Schedules(3)
    network.due["2"] = None  # type: ignore[assignment]
    assert network.run(made)[1] == ["2"]


def test_the_cap_counts_the_sites_triggered() -> None:
    """NUMBER_OF_SITES=4 with every third of 30 sites due: four of them a run, the next goes on, none is missed."""
    made, network = cron(number_of_sites=4, batch_size=5), Schedules(30, due=range(3, 31, 3))
    network.broken = set(network.due)  # they stay due, so that a site triggered twice would show
    runs = [network.run(made) for _ in range(3)]
    assert [len(triggered) for _, triggered in runs] == [4, 4, 2]
    assert [site for _, triggered in runs for site in triggered] == [str(n) for n in range(3, 31, 3)]
    assert [made.run(run_id).count for run_id, _ in runs] == [12, 12, 6]


def test_a_capped_run_with_nothing_due_behind_its_cursor_starts_over_and_counts_each_site_once() -> None:
    """Due are 2 and 3 of 20; the cursor is behind 10."""
    made, network = cron(number_of_sites=4, batch_size=3), Schedules(20, due=[2, 3])
    made.redis.set(keys.CURSOR, "10".zfill(20))
    run_id, triggered = network.run(made)
    assert triggered == ["2", "3"]
    assert (made.run(run_id).count, made.run(run_id).status) == (20, "succeeded")


def test_since_when_a_site_is_due_is_kept_until_it_is_not_any_more() -> None:
    """The index that `overdue` is read from follows each listing."""
    made, network = cron(), Schedules(5, due=[2, 4])
    network.broken = {"4"}
    network.run(made)
    assert made.redis.zrange(keys.DUE, 0, -1, withscores=True) == [(b"2", NOW - 60), (b"4", NOW - 60)]
    network.run(made)
    assert made.redis.zrange(keys.DUE, 0, -1) == [b"4"]


def test_a_source_that_cannot_tell_due_times_leaves_no_site_due() -> None:
    """A file in the place of a database: what that one said would stay overdue for ever."""
    made, network = cron(), Schedules(3, due=[2])
    network.run(made)
    assert made.redis.exists(keys.DUE)
    network.due = dict.fromkeys(network.due)  # type: ignore[assignment]
    assert network.run(made)[1] == ["1", "2", "3"]
    assert not made.redis.exists(keys.DUE)
