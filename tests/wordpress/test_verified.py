"""We know what WordPress ran: sites that take the call and run nothing, told apart from those that are at work."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.processes import until
from tests.integration.stack import API, Stack
from tests.wordpress.deployment import deployment
from tests.wordpress.network import WordPressNetwork

pytestmark = [pytest.mark.wordpress, pytest.mark.timeout(400)]

FATAL_AT_LOAD, FATAL_IN_FIRST, LOCK_THAT_ENDS, LOCK_HELD, CACHED = 2, 3, 4, 5, 6
TROUBLE = f"""<?php
/* Plugin Name: Breaks cron on two sites (must-use). */
if ( defined( 'DOING_CRON' ) && get_current_blog_id() === {FATAL_AT_LOAD} ) {{
	undefined_function_at_load();
}}
add_action( 'test_event', function ( $arming, $number ) {{
	if ( $number === 0 && get_current_blog_id() === {FATAL_IN_FIRST} ) {{
		undefined_function_in_a_callback();
	}}
}}, 1, 2 );
"""


class Cache(BaseHTTPRequestHandler):
    """A page cache that answers everything itself."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def cache() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Cache) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def deployed(wordpress: WordPressNetwork, tmp_path: Path) -> Iterator[Stack]:
    """Web and one worker, on the network's own tables."""
    with deployment(tmp_path, sites=wordpress.database.url) as stack:
        yield stack


@pytest.fixture
def troubled(wordpress: WordPressNetwork) -> Iterator[WordPressNetwork]:
    """All sites due with two events; five in the ways their names say."""
    wordpress.arm(events=2, kinds="all")
    plugin = wordpress.mu_plugins / f"trouble-{time.time_ns()}.php"
    plugin.write_text(TROUBLE)
    # A look is at 2 s and some 67, 78 and 144; wp-cron.php keeps out until the lock is 60 s old.
    for site, seconds in ((LOCK_THAT_ENDS, 0), (LOCK_HELD, 125)):
        row = f"('_transient_doing_cron', '{time.time() + seconds:.22f}', 'yes')"
        wordpress.database.query(f"INSERT INTO wp_{site}_options (option_name, option_value, autoload) VALUES {row}")
    where = f"wp_{CACHED}_options WHERE option_name = 'siteurl'"
    ((siteurl,),) = wordpress.database.query(f"SELECT option_value FROM {where}")
    with cache() as address:
        wordpress.database.query(f"UPDATE {where.replace(' WHERE', f' SET option_value = {address!r} WHERE')}")
        try:
            yield wordpress
        finally:
            plugin.unlink()
            wordpress.database.query(f"UPDATE {where.replace(' WHERE', f' SET option_value = {siteurl!r} WHERE')}")
            wordpress.wait_idle()
            wordpress.arm(kinds="none")


def test_what_ran_is_told_from_what_only_answered(troubled: WordPressNetwork, deployed: Stack) -> None:
    """All 60 answer 200. Verified are those whose two events left the schedule, with a second trigger if need be."""
    public = troubled.public_ids()
    run_id = deployed.trigger(defer=1).json()["run_id"]
    run = deployed.ended(run_id, 120)
    assert (run.status, run.total("dispatched"), run.verification) == ("succeeded", 60, "pending")
    until(lambda: deployed.run(run_id).verified["verified"] >= 55, 30)
    until(lambda: deployed.run(run_id).verification == "done", 240)
    assert deployed.run(run_id).verified == {"verified": 57, "working": 1, "stuck": 2, "unknown": 0}
    troubled.wait_idle()
    ran = dict.fromkeys(public, 2) | {FATAL_IN_FIRST: 1}  # its first event was taken off the schedule and died
    for site in (FATAL_AT_LOAD, LOCK_HELD, CACHED):
        del ran[site]
    assert troubled.ran() == ran
    assert {site for site, calls in troubled.triggers().items() if calls == 2} == {
        FATAL_AT_LOAD,
        FATAL_IN_FIRST,
        LOCK_THAT_ENDS,
    }
    stuck = deployed.client.get(f"{API}/sites", params={"state": "stuck"}).json()["sites"]
    assert {site["site_id"] for site in stuck} == {str(FATAL_AT_LOAD), str(CACHED)}
    healthy = deployed.client.get(f"{API}/sites/{FATAL_IN_FIRST}").json()
    assert (healthy["state"], bool(healthy["last_verified_at"])) == ("healthy", True)
