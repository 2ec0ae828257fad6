"""The uses of the plugin's old names are counted, and told as long as they are recent."""

import pytest

from jobs import filters, keys, lifecycle
from jobs.admission import Trigger, fresh_job, request
from jobs.settings import load
from jobs.world import build
from tests.unit.fakes import Cron

ROUTE = "/wp-json/dss-cron/v1/run"
DAY_MS = 86_400_000


def call(cron: Cron, *names: str) -> None:
    """One trigger that used these names."""
    cron.scripts.admit(request(Trigger("defer", "redis", "test", 60, names))[0])


def told(cron: Cron) -> list[tuple[str, str]]:
    """What is said of each, without when it was last used; and the first sentence of what to do."""
    return [
        (said.partition(", the last on ")[0], to_do.partition(" Told")[0])
        for said, to_do in lifecycle.legacy_uses(cron.redis)
    ]


def test_calls_of_the_legacy_route_are_counted_whatever_becomes_of_them(cron: Cron) -> None:
    """Queued, joined, refused; those of the new one are not."""
    call(cron)
    assert told(cron) == []
    call(cron, ROUTE)
    cron.redis.set(keys.DEACTIVATED, 0)
    call(cron, ROUTE)
    assert told(cron) == [
        (f"the legacy route {ROUTE} was called 2 times", "Call /wp-json/all-sites-cron/v1/run."),
    ]


RENAMED = [
    ("DSS_CRON_BATCH_SIZE", "ALL_SITES_CRON_BATCH_SIZE", "variable"),
    ("DSS_CRON_AUTH_TOKEN_FILE", "ALL_SITES_CRON_AUTH_TOKEN_FILE", "variable"),
    ("DSS_CRON_REDIS_URL", "REDIS_URL", "variable"),
    ("DSS_CRON_REDIS_MAX_RETRIES", "ALL_SITES_CRON_MAX_RETRIES", "variable"),
    ("ALL_SITES_CRON_REDIS_MAX_RETRIES", "ALL_SITES_CRON_MAX_RETRIES", "variable"),
    ("dss_cron_number_of_sites", "all_sites_cron_number_of_sites", "filter"),
]


@pytest.mark.parametrize(("old", "new", "kind"), RENAMED)
def test_legacy_variables_and_filters_are_told_with_the_new_name(cron: Cron, old: str, new: str, kind: str) -> None:
    """A process hands its own to the sweep."""
    for _ in range(3):
        cron.scripts.sweep(legacy=(old,), **fresh_job())
    said = f"the legacy {kind} {old} was used by 3 starts of a web process or worker"
    assert told(cron) == [(said, f"Use {new}.")]


@pytest.mark.parametrize("name", ["DSS_CRON_BATCH_SIZE", "ALL_SITES_CRON_REDIS_MAX_RETRIES", "DSS_CRON_REDIS_URL"])
def test_the_settings_know_the_legacy_variables_they_came_from(name: str) -> None:
    """Not one that is ignored, since the new name is set as well."""
    given = {"REDIS_URL": "redis://", "ALL_SITES_CRON_CONCURRENCY": "9", "DSS_CRON_CONCURRENCY": "8", name: "5"}
    if name == "DSS_CRON_REDIS_URL":
        given |= {"REDIS_URL": "", name: "redis://"}
    assert load(given).legacy == (name,)


def test_the_world_knows_the_legacy_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_added", {})
    filters.add_filter("dss_cron_number_of_sites", int)
    filters.add_filter("all_sites_cron_batch_size", int)
    known = build({"REDIS_URL": "redis://localhost", "DSS_CRON_BATCH_SIZE": "5"}).loaded.legacy
    assert known == ("DSS_CRON_BATCH_SIZE", "dss_cron_number_of_sites")


def test_a_name_that_was_not_used_for_thirty_days_is_told_no_more(cron: Cron) -> None:
    """Although another one still is; and nothing is kept beyond 30 days after the last use of any."""
    call(cron, ROUTE, "DSS_CRON_BATCH_SIZE")
    assert 29 * 86400 < cron.redis.ttl(keys.LEGACY_USES) <= 30 * 86400
    cron.redis.hset(keys.LEGACY_USES, "DSS_CRON_BATCH_SIZE", f"7 {cron.now() - 31 * DAY_MS}")
    assert [said for said, _ in told(cron)] == [f"the legacy route {ROUTE} was called 1 times"]
    cron.redis.hset(keys.LEGACY_USES, ROUTE, f"7 {cron.now() - 29 * DAY_MS}")
    assert len(told(cron)) == 1
