"""The whole service on a real WordPress multisite: effects are counted by WordPress and nginx, never by the product."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.stack import Stack
from tests.wordpress.deployment import deployment
from tests.wordpress.network import WordPressNetwork

pytestmark = [pytest.mark.wordpress, pytest.mark.timeout(300)]


@pytest.fixture
def deployed(wordpress: WordPressNetwork, tmp_path: Path) -> Iterator[Stack]:
    """On the network's own site list as `wp site list` prints it."""
    (tmp_path / "sites.csv").write_text(wordpress.site_list_csv())
    with deployment(tmp_path, sites=tmp_path / "sites.csv") as stack:
        yield stack


@pytest.fixture
def on_tables(wordpress: WordPressNetwork, tmp_path: Path) -> Iterator[Stack]:
    """On the network's own tables."""
    with deployment(tmp_path, sites=wordpress.database.url) as stack:
        yield stack


def test_one_deferred_call_runs_every_due_event_of_every_public_site_exactly_once(
    wordpress: WordPressNetwork, deployed: Stack
) -> None:
    """No excluded site is called: the access log of the web server says so, since WordPress itself would not."""
    wordpress.arm(events=2, kinds="all")
    answer = deployed.trigger(defer=1)
    assert answer.status_code == 202
    run = deployed.ended(answer.json()["run_id"], 120)
    wordpress.wait_idle()
    assert wordpress.ran() == dict.fromkeys(wordpress.public_ids(), 2)
    assert wordpress.triggers() == dict.fromkeys(wordpress.public_ids(), 1)
    assert wordpress.still_due() == wordpress.excluded_ids()
    assert (run.status, run.count, run.total("dispatched")) == ("succeeded", 60, 60)


def test_a_synchronous_call_does_the_same(wordpress: WordPressNetwork, deployed: Stack) -> None:
    """The walker of the web process obeys the same rules."""
    wordpress.arm(events=1, kinds="all")
    answer = deployed.trigger(ga=1)
    assert (answer.status_code, answer.text) == (200, "::notice::Running wp-cron on 60 sites\n")
    wordpress.wait_idle()
    assert wordpress.ran() == dict.fromkeys(wordpress.public_ids(), 1)


def test_on_the_networks_own_tables_only_sites_with_something_due_are_called(
    wordpress: WordPressNetwork, on_tables: Stack
) -> None:
    """The first run calls all 60; in the second nothing is due, which is a success. No log has the password."""
    wordpress.arm(events=1, kinds="public")
    for called in (60, 0):
        run = on_tables.ended(on_tables.trigger(defer=1).json()["run_id"], 120)
        wordpress.wait_idle()
        assert wordpress.triggers() == wordpress.ran() == dict.fromkeys(wordpress.public_ids(), 1)
        assert (run.status, run.count, run.total("dispatched")) == ("succeeded", 60, called)
    assert "wordpress:wordpress" not in on_tables.log("web") + on_tables.log("worker")


def test_the_control_with_a_value_in_doing_wp_cron_runs_nothing(wordpress: WordPressNetwork) -> None:
    """What the plugin sends: every site answers 200, not one event runs."""
    wordpress.arm(events=1, kinds="public")
    with httpx.Client(timeout=30) as client:
        for url in wordpress.site_urls().values():
            assert client.post(f"{url}/wp-cron.php", params={"doing_wp_cron": "1690000000.5"}).status_code == 200
    wordpress.wait_idle()
    assert wordpress.ran() == {}
    assert wordpress.still_due() == wordpress.public_ids()
