"""The companion plugin's feed on a real network, and what FeedSource makes of it."""

import ipaddress
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.addresses import AddressGuard
from jobs.sites import NEVER, Site
from jobs.sources import State, open_source
from jobs.sources.feed import FeedSource
from tests.integration.processes import until
from tests.integration.stack import Stack
from tests.wordpress.deployment import deployment
from tests.wordpress.feed_plugin import CONSTANT, PATH, PLUGIN, TOKEN, installed
from tests.wordpress.network import WordPressNetwork

pytestmark = [pytest.mark.wordpress, pytest.mark.timeout(300)]
# How many queries the feed itself made: those with its callback in their call stack.
COUNT_QUERIES = """define( 'SAVEQUERIES', true ); add_filter( 'rest_post_dispatch', function ( $response ) {
	$own = fn( $query ) => strpos( $query[2], 'All_Sites_Cron_Feed\\answer' );
	$response->header( 'X-Feed-Queries', count( array_filter( $GLOBALS['wpdb']->queries, $own ) ) );
	return $response;
} );"""


@pytest.fixture
def feed(wordpress: WordPressNetwork) -> Iterator[WordPressNetwork]:
    """The network with the plugin, TOKEN as its token, and a due event on each site, excluded ones too."""
    wordpress.arm()
    with installed(wordpress, CONSTANT + COUNT_QUERIES):
        yield wordpress


@pytest.fixture
def source(feed: WordPressNetwork) -> Iterator[FeedSource]:
    guard = AddressGuard([ipaddress.ip_network("127.0.0.0/8")])
    with closing(FeedSource(feed.url + PATH, token=TOKEN, guard=guard)) as source:
        yield source


def ask(network: WordPressNetwork, authorization: str | None = f"Bearer {TOKEN}", **query: Any) -> httpx.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    return httpx.get(network.url + PATH, params=query, headers=headers, timeout=60)


def listed(source: FeedSource, size: int = 50) -> dict[str, Site]:
    assert source.problems.count == 0
    return {site.id: site for page in source.pages("", size) for site in page.sites}


def cron_option(network: WordPressNetwork, site: int, value: str | None) -> None:
    network.database.query(f"DELETE FROM wp_{site}_options WHERE option_name = 'cron'")
    if value is not None:
        row = f"('cron', '{value}', 'yes')"
        network.database.query(f"INSERT INTO wp_{site}_options (option_name, option_value, autoload) VALUES {row}")


def test_the_plugin_is_correct_php() -> None:
    """By PHP's own word."""
    subprocess.run(["php", "-l", PLUGIN], check=True, capture_output=True)


def test_the_public_sites_are_listed_by_key(feed: WordPressNetwork, source: FeedSource) -> None:
    """All 60 in id order with their siteurl, whatever the page's size; none of the excluded ones."""
    urls = {str(site): url for site, url in feed.site_urls().items() if site in feed.public_ids()}
    assert {site.id: site.url for site in listed(source, size=7).values()} == urls
    pages = [ask(feed, limit=25).json()]
    while pages[-1]["next"]:
        pages.append(ask(feed, limit=25, after=pages[-1]["next"]).json())
    assert [len(page["sites"]) for page in pages] == [25, 25, 10]
    assert [entry["id"] for page in pages for entry in page["sites"]] == sorted(feed.public_ids())


def test_due_times_are_those_of_the_sites_schedules(feed: WordPressNetwork, source: FeedSource) -> None:
    """Of armed sites in the past, else a month ahead, by the network's own clock."""
    before = int(time.time())
    (page, *_) = source.pages("", 50)
    assert source.knows_due
    assert page.now is not None
    assert before <= page.now <= time.time()
    assert all(page.now - 700 < (site.due or NEVER) < page.now for site in listed(source).values())
    feed.arm(kinds="none")
    assert all(page.now + 86400 < (site.due or 0) < NEVER for site in listed(source).values())


@pytest.mark.parametrize(
    ("cron", "due"),
    [
        (None, NEVER),
        ("", NEVER),
        ('a:1:{s:7:"version";i:2;}', NEVER),
        ("a:0:{}", NEVER),
        ('a:2:{s:7:"version";i:2;i:1700000000;a:0:{}}', 1_700_000_000),
        ("a:1:{i:1;a:0:{}}", 1),
    ],
)
def test_an_odd_cron_option_is_read_as_core_reads_it(
    feed: WordPressNetwork, source: FeedSource, cron: str | None, due: int
) -> None:
    """Without a time in it nothing is scheduled."""
    site = max(feed.public_ids())
    cron_option(feed, site, cron)
    assert listed(source)[str(site)].due == due
    assert source.states([str(site)])[1] == {str(site): State(due, 0)}


def test_states_tell_due_times_and_locks_of_public_sites(feed: WordPressNetwork, source: FeedSource) -> None:
    """Locked since what the transient says; excluded and unknown sites are left out."""
    free, held = sorted(feed.public_ids())[1:3]
    lock = f"{time.time():.22f}"
    row = f"('_transient_doing_cron', '{lock}', 'yes')"
    feed.database.query(f"INSERT INTO wp_{held}_options (option_name, option_value, autoload) VALUES {row}")
    now, states = source.states([str(site) for site in (free, held, min(feed.excluded_ids()), 99999)])
    assert states.keys() == {str(free), str(held)}
    assert [states[str(site)].due < now for site in (free, held)] == [True, True]
    assert states[str(free)].locked == 0
    assert states[str(held)].locked == pytest.approx(float(lock), abs=0.001)


@pytest.mark.parametrize("query", [{"limit": 1}, {"limit": 500}, {"ids": "1"}, {"ids": "1,2,3,4,5,6,7,8,9"}])
def test_an_answer_takes_two_queries_however_many_sites_it_has(feed: WordPressNetwork, query: dict[str, Any]) -> None:
    """One for the sites, one for their options."""
    assert ask(feed, **query).headers["X-Feed-Queries"] == "2"


def test_a_site_without_tables_is_left_out(feed: WordPressNetwork, source: FeedSource) -> None:
    """As a site whose deletion broke off leaves it; the others of its page are listed, with two queries more."""
    feed.database.query("RENAME TABLE wp_5_options TO away")
    try:
        assert listed(source).keys() == {str(site) for site in feed.public_ids() - {5}}
        assert source.states(["4", "5"])[1].keys() == {"4"}
        assert ask(feed).headers["X-Feed-Queries"] == "4"
        assert ask(feed, after=4, limit=1).json() | {"now": 0} == {"version": 1, "now": 0, "sites": [], "next": 5}
    finally:
        feed.database.query("RENAME TABLE away TO wp_5_options")


def test_a_database_error_is_no_empty_page(feed: WordPressNetwork) -> None:
    """A run would take that for the end of the list."""
    feed.database.query("ALTER TABLE wp_5_options RENAME COLUMN option_value TO away")
    try:
        answer = ask(feed)
    finally:
        feed.database.query("ALTER TABLE wp_5_options RENAME COLUMN away TO option_value")
    assert (answer.status_code, answer.json()["code"]) == (500, "all_sites_cron_feed_database_error")


def test_sites_of_another_network_are_not_listed(feed: WordPressNetwork, source: FeedSource) -> None:
    """One installation may hold several networks."""
    feed.database.query("UPDATE wp_blogs SET site_id = 2 WHERE blog_id = 5")
    try:
        assert listed(source).keys() == {str(site) for site in feed.public_ids() - {5}}
    finally:
        feed.database.query("UPDATE wp_blogs SET site_id = 1 WHERE blog_id = 5")


def test_only_the_main_site_has_the_feed(feed: WordPressNetwork) -> None:
    """It would list the same sites everywhere."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{feed.url}site1/{PATH}", headers=headers, timeout=60).status_code == 404


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (None, 403),
        ("Bearer", 403),
        ("Bearer wrong", 403),
        (f"Bearer {TOKEN}x", 403),
        (TOKEN, 403),
    ],
)
def test_only_the_right_token_is_answered(feed: WordPressNetwork, authorization: str | None, status: int) -> None:
    """In the header; no cache may keep either answer."""
    answer = ask(feed, authorization, token=TOKEN)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (status, "no-store")
    assert ("sites" in answer.json()) == (status == 200)


@pytest.mark.parametrize("php", ["", 'define( "ALL_SITES_CRON_FEED_TOKEN", "" );'])
def test_without_a_token_set_nobody_is_answered(wordpress: WordPressNetwork, php: str) -> None:
    """Not with an empty token either."""
    with installed(wordpress, php):
        for authorization in (None, "Bearer", f"Bearer {TOKEN}"):
            answer = ask(wordpress, authorization)
            assert (answer.status_code, answer.json()["code"]) == (403, "all_sites_cron_feed_not_configured")
            assert answer.headers["Cache-Control"] == "no-store"


def test_the_token_may_come_from_the_environment(wordpress: WordPressNetwork) -> None:
    """Where wp-config.php is not to be touched."""
    with installed(wordpress, f'putenv( "ALL_SITES_CRON_FEED_TOKEN={TOKEN}" );'):
        assert ask(wordpress).status_code == 200
        assert ask(wordpress, "Bearer wrong").status_code == 403


@pytest.mark.parametrize(
    "query", [{"after": "a"}, {"after": -1}, {"limit": 0}, {"ids": "1,x"}, {"ids": ",".join(map(str, range(1, 502)))}]
)
def test_a_wrong_parameter_is_a_400(feed: WordPressNetwork, query: dict[str, Any]) -> None:
    """Named as WordPress does; at most 500 ids."""
    answer = ask(feed, **query)
    assert (answer.status_code, answer.json()["code"]) == (400, "rest_invalid_param")
    assert list(answer.json()["data"]["params"]) == list(query)


@pytest.fixture
def deployed(feed: WordPressNetwork, tmp_path: Path) -> Iterator[Stack]:
    """Web and one worker from the Procfile, with the feed as their site list."""
    with deployment(tmp_path, sites=feed.url + PATH, feed_token=TOKEN) as stack:
        yield stack


def test_a_run_on_the_feed_runs_every_public_sites_event_once_and_verifies_it(
    feed: WordPressNetwork, deployed: Stack
) -> None:
    """By the feed's states; no excluded site is called, and no second trigger is sent."""
    run_id = deployed.trigger(defer=1).json()["run_id"]
    run = deployed.ended(run_id, 60)
    assert (run.status, run.count, run.total("dispatched")) == ("succeeded", 60, 60)
    until(lambda: deployed.run(run_id).verification == "done", 60)
    assert deployed.run(run_id).verified == {"verified": 60, "working": 0, "stuck": 0, "unknown": 0}
    feed.wait_idle()
    assert feed.ran() == dict.fromkeys(feed.public_ids(), 1)
    assert feed.triggers() == dict.fromkeys(feed.public_ids(), 1)


def test_a_run_on_the_feed_calls_only_sites_with_something_due(feed: WordPressNetwork, deployed: Stack) -> None:
    """The others are counted: the run is about them, too."""
    feed.arm(kinds="none")
    cron_option(feed, 7, "a:1:{i:1700000000;a:0:{}}")
    run = deployed.ended(deployed.trigger(defer=1).json()["run_id"], 60)
    assert (run.status, run.count, run.total("dispatched")) == ("succeeded", 60, 1)
    feed.wait_idle()
    assert feed.triggers() == {7: 1}


def test_the_database_and_the_feed_list_the_same_sites(feed: WordPressNetwork, source: FeedSource) -> None:
    """Ids, addresses and due times, also of locked, unscheduled and broken sites."""
    feed.arm(kinds="public")
    cron_option(feed, 7, 'a:1:{s:7:"version";i:2;}')
    cron_option(feed, 8, None)
    row = f"('_transient_doing_cron', '{time.time():.22f}', 'yes')"
    feed.database.query(f"INSERT INTO wp_9_options (option_name, option_value, autoload) VALUES {row}")
    feed.database.query("RENAME TABLE wp_5_options TO away")
    try:
        with closing(open_source(feed.database.url, feed_token=None, guard=AddressGuard())) as database:
            lists = [
                [(site.id, site.url, site.due) for page in each.pages("", 50) for site in page.sites]
                for each in (source, database)
            ]
            ids = [site_id for site_id, _, _ in lists[0]]
            (feed_now, feed_states), (database_now, database_states) = source.states(ids), database.states(ids)
    finally:
        feed.database.query("RENAME TABLE away TO wp_5_options")
    assert lists[0] == lists[1]
    assert len(lists[0]) == 59
    assert feed_states.keys() == database_states.keys()
    for site_id, state in feed_states.items():
        other = database_states[site_id]
        assert state.due == other.due
        assert state.locked == pytest.approx(other.locked)
    assert abs(feed_now - database_now) <= 2
