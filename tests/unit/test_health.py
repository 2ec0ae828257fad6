"""Cron health: what each trigger and verification leaves in a site's record, and what becomes of one that left."""

import pytest

from jobs import filters, health, keys
from jobs.health import Health
from tests.unit.due_rig import NOW, Schedules
from tests.unit.fakes import Cron


@pytest.fixture
def made() -> Cron:
    return Cron(origin_concurrency=100, max_retries=0)


def record(made: Cron, site_id: str) -> Health:
    """What is known of a site."""
    found = health.parse(site_id, made.redis.hget(keys.site(site_id), site_id), made.redis.zscore(keys.DUE, site_id))
    assert found is not None
    return found


def members(made: Cron, key: str) -> set[str]:
    return {site_id.decode() for site_id in made.redis.zrange(key, 0, -1)}


def test_a_streak_of_failures_has_its_first_time_and_its_last_reason(made: Cron) -> None:
    """404 twice, then a reset; a 200 ends it."""
    network = Schedules(2, due=[1, 2])
    network.broken = {"1", "2"}
    network.answers["1"] = {"status": 404}
    network.run(made)
    first = record(made, "1")
    assert (first.failures, first.reason, first.dispatched) == (1, "http_4xx", None)
    since = (first.since or 0) - 60
    made.redis.hset(keys.site("1"), "1", f"0 0 1 {since:x} 4 http://127.0.0.1:8001/1")
    network.answers["1"] = {"error": "reset"}
    network.run(made)
    second = record(made, "1")
    assert (second.failures, second.reason, second.since) == (2, "reset", since)
    assert (members(made, keys.FAILING), record(made, "2").failures) == ({"1"}, 0)
    network.answers.clear()
    network.run(made)
    third = record(made, "1")
    assert (third.failures, third.since, third.reason, bool(third.dispatched)) == (0, None, None, True)
    assert members(made, keys.FAILING) == set()


def test_a_timeout_neither_breaks_nor_makes_a_streak(made: Cron) -> None:
    """The site may be working on it; the trigger counts as its last."""
    network = Schedules(2, due=[1, 2])
    network.broken = {"1", "2"}
    network.answers = {"1": {"status": 500}, "2": {"error": "timeout"}}
    network.run(made)
    network.answers["1"] = {"error": "timeout"}
    network.run(made)
    assert (record(made, "1").failures, record(made, "2").failures) == (1, 0)
    assert record(made, "2").dispatched


def test_a_stuck_site_stays_so_until_it_is_verified(made: Cron) -> None:
    """A 2xx alone does not take it back; a failed trigger becomes its state meanwhile."""
    network = Schedules(1, due=[1])
    network.broken = {"1"}
    made.scripts.verify(id="x", head="", results=[])  # no such list: nothing
    run_id, _ = network.run(made)
    head = made.redis.lindex(keys.unverified(run_id), 0).decode()
    assert made.scripts.verify(id=run_id, head=head, results=[["1", "http://127.0.0.1:8001/1", "stuck"]])
    network.run(made)
    assert (record(made, "1").reason, members(made, keys.STUCK)) == ("stuck", {"1"})
    network.answers["1"] = {"status": 503}
    network.run(made)
    assert (record(made, "1").failures, record(made, "1").reason) == (2, "http_5xx")
    assert (members(made, keys.STUCK), members(made, keys.FAILING)) == (set(), {"1"})


def test_a_verification_takes_back_no_failure_of_a_later_run(made: Cron) -> None:
    """A minute later another run was refused by the site, before the first one's last look; that run's own does."""
    network = Schedules(1, due=[1])
    network.broken, network.answers = {"1"}, {"1": {"error": "timeout"}}
    first, _ = network.run(made)
    made.redis.hincrby(keys.run(first), "ended_ms", -60_000)
    network.answers["1"] = {"status": 500}
    network.run(made)
    network.due["1"] = NOW + 86400
    network.look(made, first, seconds=2)
    assert (record(made, "1").reason, bool(record(made, "1").verified)) == ("http_5xx", True)
    assert members(made, keys.FAILING) == {"1"}


@pytest.mark.parametrize("due", [NOW + 86400, None])
def test_a_site_is_not_stuck_any_more_when_nothing_is_due_or_nobody_can_tell(made: Cron, due: int | None) -> None:
    """A visitor's call ran its events: it may never be triggered, and so verified, again."""
    network = Schedules(2, due=[1, 2])
    network.broken = {"1", "2"}
    run_id, _ = network.run(made)
    for seconds in (2, 65, 10):
        network.look(made, run_id, seconds=seconds)
    before = record(made, "1")
    assert (before.reason, members(made, keys.STUCK)) == ("stuck", {"1", "2"})
    network.due["1"] = due  # type: ignore[assignment]
    network.run(made)
    after = record(made, "1")
    assert (after.failures, after.reason, after.verified, after.url) == (0, None, None, before.url)
    assert members(made, keys.STUCK) == {"2"}


@pytest.mark.parametrize(
    ("failures", "reason", "due", "state"),
    [
        (0, None, None, "healthy"),
        (0, None, NOW - 21600, "healthy"),
        (0, None, NOW - 21601, "overdue"),
        (2, "dns", NOW - 21601, "failing"),
        (2, "stuck", NOW - 21601, "stuck"),
    ],
)
def test_the_state_of_a_site(failures: int, reason: str | None, due: int | None, state: str) -> None:
    """Overdue is what has been due for longer than OVERDUE_AFTER and neither fails nor is stuck."""
    site = Health("1", "http://a", None, None, failures, None, reason, due)
    assert site.state(NOW, 21600) == state


def test_sites_that_left_are_forgotten_and_no_other(made: Cron) -> None:
    """Records and indexes; ids of 1,000 sites and two that a URL gave."""
    network = Schedules(1000, due=range(1, 1001))
    network.due |= {"u-0123456789ab": NOW, "u-ba9876543210": NOW}
    network.broken = set(network.due)
    network.answers = {site: {"status": 500} for site in ("7", "8")}
    network.run(made)
    for gone in ("7", "500", "u-0123456789ab"):
        del network.due[gone]
    health.prune(made.redis, network)
    known = {site.decode() for key in made.redis.scan_iter(f"{keys.SITES}*") for site in made.redis.hkeys(key)}
    assert known == network.due.keys()
    assert members(made, keys.DUE) == network.due.keys()
    assert members(made, keys.FAILING) == {"8"}


def test_another_number_of_sites_or_an_hour_has_the_records_pruned(made: Cron) -> None:
    """The first whole listing is only counted."""
    network = Schedules(10, due=[1])
    network.run(made)
    network.run(made)
    assert made.redis.zscore(keys.FOLLOW_UP, "prune") is None
    del network.due["9"]
    network.run(made)
    assert made.redis.zscore(keys.FOLLOW_UP, "prune")
    assert network.look(made, "prune") == []
    assert made.redis.zscore(keys.FOLLOW_UP, "prune") is None
    sites, at = made.redis.get(keys.CENSUS).split()
    made.redis.set(keys.CENSUS, b"%s %d" % (sites, int(at) - 3_600_001))
    network.run(made)
    assert made.redis.zscore(keys.FOLLOW_UP, "prune")


def test_capped_runs_have_the_records_pruned_every_hour() -> None:
    """None of them lists all sites; what left would stay failing or overdue for ever."""
    made, network = Cron(number_of_sites=3), Schedules(10, due=[1])
    for _ in range(2):
        network.run(made)
        assert made.redis.zscore(keys.FOLLOW_UP, "prune") is None
    sites, at = made.redis.get(keys.CENSUS).split()
    made.redis.set(keys.CENSUS, b"%s %d" % (sites, int(at) - 3_600_001))
    network.run(made)
    assert made.redis.zscore(keys.FOLLOW_UP, "prune")


def test_a_site_that_a_filter_drops_is_forgotten(made: Cron, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run comes to it any more, so that it would stay overdue for ever."""
    network = Schedules(3, due=[1, 2, 3])
    network.run(made)
    monkeypatch.setattr(filters, "_added", {})
    filters.add_filter(filters.SITES, lambda sites: [site for site in sites if site.id != "2"])
    network.look(made, "prune")
    assert members(made, keys.DUE) == {"1", "3"}
    assert not made.redis.hexists(keys.site("2"), "2")


def test_an_empty_list_prunes_nothing(made: Cron) -> None:
    """It is more likely a fault than a network without any site."""
    network = Schedules(3, due=[1, 2, 3])
    network.run(made)
    health.prune(made.redis, Schedules(0))
    assert made.redis.hlen(keys.site("1")) == 3
