"""The network behaves as WordPress networks do; what is built on it may rely on this."""

import csv
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.unavailable import unavailable
from tests.wordpress.daemons import wait_until
from tests.wordpress.network import WordPressNetwork

pytestmark = [pytest.mark.wordpress, pytest.mark.timeout(300)]  # the first start builds the network
REPOSITORY = Path(__file__).parents[2]


def a_public_site(network: WordPressNetwork) -> int:
    return max(network.public_ids())


def call(network: WordPressNetwork, site_id: int, query: str = "doing_wp_cron", body: bytes = b"") -> int:
    """The status of `POST {siteurl}/wp-cron.php?{query}`, when all that it started has ended."""
    status = httpx.post(f"{network.site_urls()[site_id]}/wp-cron.php?{query}", content=body, timeout=60).status_code
    network.wait_idle()
    return status


def test_an_empty_doing_wp_cron_runs_the_sites_due_events_exactly_once(wordpress: WordPressNetwork) -> None:
    """Two due events run once each, on the called site only, and leave its schedule; the lock is gone."""
    wordpress.arm(events=2)
    site = a_public_site(wordpress)
    assert call(wordpress, site) == 200
    assert wordpress.ran() == {site: 2}
    assert wordpress.still_due() == (wordpress.public_ids() | wordpress.excluded_ids()) - {site}
    assert wordpress.locked() == set()
    assert call(wordpress, site) == 200
    assert wordpress.triggers() == {site: 2}
    assert wordpress.ran() == {site: 2}


def test_a_call_to_the_main_site_runs_the_main_sites_events(wordpress: WordPressNetwork) -> None:
    wordpress.arm()
    assert call(wordpress, 1) == 200
    assert wordpress.ran() == {1: 1}


def test_a_doing_wp_cron_with_a_value_answers_200_and_runs_nothing(wordpress: WordPressNetwork) -> None:
    """The control: a trigger that is wrong in this way is seen only by what did not run (wp-cron.php)."""
    wordpress.arm()
    site = a_public_site(wordpress)
    assert call(wordpress, site, query="doing_wp_cron=123.45") == 200
    assert wordpress.ran() == {}
    assert site in wordpress.still_due()


def test_a_body_runs_nothing(wordpress: WordPressNetwork) -> None:
    """wp-cron.php dies on a non-empty $_POST; PHP fills it from a form's body."""
    wordpress.arm()
    site = a_public_site(wordpress)
    url = f"{wordpress.site_urls()[site]}/wp-cron.php?doing_wp_cron"
    assert httpx.post(url, data={"a": "b"}, timeout=60).status_code == 200
    wordpress.wait_idle()
    assert wordpress.ran() == {}
    assert site in wordpress.still_due()


def test_calls_to_excluded_sites_are_seen(wordpress: WordPressNetwork) -> None:
    """Of these WordPress runs only a non-public site's events; every call is counted."""
    wordpress.arm()
    flags = {int(row["blog_id"]): row for row in csv.DictReader(wordpress.site_list_csv().splitlines())}
    for site in wordpress.excluded_ids():
        call(wordpress, site)
    assert wordpress.triggers() == dict.fromkeys(wordpress.excluded_ids(), 1)
    assert wordpress.ran() == {site: 1 for site, row in flags.items() if row["public"] == "0"}


def test_kinds_decides_which_sites_are_armed(wordpress: WordPressNetwork) -> None:
    wordpress.arm(kinds="all")
    assert wordpress.still_due() == wordpress.public_ids() | wordpress.excluded_ids()
    wordpress.arm(kinds="public")
    assert wordpress.still_due() == wordpress.public_ids()
    wordpress.arm(kinds="none")
    assert wordpress.still_due() == set()


def test_arming_removes_locks_and_counts_from_zero(wordpress: WordPressNetwork) -> None:
    wordpress.arm()
    site = a_public_site(wordpress)
    call(wordpress, site)
    lock = f"INSERT INTO wp_{site}_options (option_name, option_value) VALUES ('_transient_doing_cron', '1.5')"
    wordpress.database.query(lock)
    assert wordpress.locked() == {site}
    wordpress.arm()
    assert (wordpress.locked(), wordpress.ran(), wordpress.triggers()) == (set(), {}, {})


def test_the_site_list_has_60_public_sites_and_3_of_each_excluded_kind(wordpress: WordPressNetwork) -> None:
    """Columns and values as wp-cli prints them; addresses as the sites' own options have them."""
    rows = list(csv.DictReader(wordpress.site_list_csv().splitlines()))
    assert list(rows[0]) == ["blog_id", "url", "public", "archived", "deleted", "spam"]
    assert rows[0] == {"blog_id": "1", "url": wordpress.url, "public": "1"} | dict.fromkeys(
        ("archived", "deleted", "spam"), "0"
    )
    flags = Counter((row["public"], row["archived"], row["deleted"], row["spam"]) for row in rows)
    excluded = [("1", "1", "0", "0"), ("1", "0", "1", "0"), ("1", "0", "0", "1"), ("0", "0", "0", "0")]
    assert flags == {("1", "0", "0", "0"): 60, **dict.fromkeys(excluded, 3)}
    for row in rows:
        table = "wp_options" if row["blog_id"] == "1" else f"wp_{row['blog_id']}_options"
        option = wordpress.database.query(f"SELECT option_value FROM {table} WHERE option_name = 'siteurl'")
        assert row["url"] == option[0][0] + "/"


@pytest.mark.usefixtures("wordpress")
def test_the_daemons_end_when_the_test_process_is_killed() -> None:
    """The next start removes what the killed process left on disk."""
    program = (
        "from tests.wordpress.network import WordPressNetwork as N\n"
        "import sys\n"
        "n = N(); n.start(); print(n.directory, *n.daemons.pids.values(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        directory, *pids = process.stdout.readline().split()
        masters = [psutil.Process(int(pid)) for pid in pids]
        daemons = [*masters, *(child for master in masters for child in master.children(recursive=True))]
        process.send_signal(signal.SIGKILL)
    try:
        assert len(daemons) >= 12, "MariaDB, php-fpm and its 8 children, nginx and its worker"
        wait_until(lambda: not any(daemon.is_running() for daemon in daemons), 20, "the daemons to end")
    finally:
        for daemon in daemons:
            with suppress(psutil.NoSuchProcess):
                daemon.kill()
    with WordPressNetwork():
        assert not Path(directory).exists()


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [("", pytest.skip.Exception), ("0", pytest.skip.Exception), ("1", pytest.fail.Exception)],
)
def test_what_cannot_run_is_left_out_but_fails_in_ci(ci: str, outcome: type[BaseException]) -> None:
    with pytest.raises(outcome, match="make test-system"):
        unavailable("run `make test-system`", ci)
