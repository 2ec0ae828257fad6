"""`import-plugin` on the real WordPress's tables: what it finds, deletes and leaves (CONTRACT section 8)."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.wordpress.network import WordPressNetwork

pytestmark = [pytest.mark.wordpress, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
KINDS = ("_site_transient_", "_site_transient_timeout_", "_transient_", "_transient_timeout_")
PLUGINS = [f"{kind}{name}_{end}" for kind in KINDS for name in ("dss_cron", "all_sites_cron") for end in ("", "x'1")]
OTHERS = [  # what a `_` taken as a wildcard, a missing anchor or too wide a pattern would delete
    "xtransient_dss_cron_x",
    "xsite_transient_all_sites_cron_x",
    "_site-transient_dss_cron_x",
    "_transient-dss_cron_x",
    "_transient_dss-cron_x",
    "_transient_all-sites_cron_x",
    "_transient_all_sites-cron_x",
    "_transient_timeout-dss_cron_x",
    "_transient_all_sites_crony",
    "_transient_other_dss_cron_x",
    "my_transient_dss_cron_x",
    "all_sites_cron_migrated_legacy_transients",
    "dss_cron_x",
    "_TRANSIENT_dss_cron_y",  # MySQL compares without case and trailing blanks
    "ALL_SITES_CRON_AUTH_TOKEN",
]
OPTIONS = {1: "wp_options", 2: "wp_2_options", 3: "wp_3_options"}
Rows = set[tuple[str, ...]]


class Leftovers:
    """Copies of the real tables in a database of their own, with networks 1 (main site 1) and 2 (main site 3)."""

    def __init__(self, network: WordPressNetwork) -> None:
        self._network = network
        tables = ("wp_site", "wp_blogs", "wp_sitemeta", *OPTIONS.values())
        copies = [f"CREATE TABLE {table} LIKE wordpress.{table}" for table in tables]
        copies += [f"INSERT {table} SELECT * FROM wordpress.{table}" for table in tables]
        self.query(
            ";".join(copies) + ";INSERT wp_site SELECT 2, domain, '/two/' FROM wp_site;"
            "UPDATE wp_blogs SET site_id = 2 WHERE blog_id IN (2, 3);"
            "UPDATE wp_blogs SET path = '/two/' WHERE blog_id = 3"
        )

    def query(self, sql: str) -> list[list[str]]:
        return self._network.database.query(sql, "leftovers")

    def plant(self, *names: str, value: str = "1") -> None:
        """Rows of these names in the meta table for both networks, and in every options table."""
        sql = []
        for name in (name.replace("'", "''") for name in names):
            sql += [f"INSERT wp_sitemeta VALUES (NULL, {network}, '{name}', '{value}')" for network in (1, 2)]
            sql += [f"INSERT {table} VALUES (NULL, '{name}', '{value}', 'no')" for table in OPTIONS.values()]
        self.query(";".join(sql))

    def rows(self) -> Rows:
        """Every row: table, network or nothing, id, name and the value's hash."""
        sql = "SELECT 'wp_sitemeta', site_id, meta_id, meta_key, MD5(meta_value) FROM wp_sitemeta"
        for table in OPTIONS.values():
            sql += f" UNION ALL SELECT '{table}', '', option_id, option_name, MD5(option_value) FROM {table}"
        return {tuple(row) for row in self.query(sql)}

    def run(self, *options: str, user: str = "wordpress:wordpress", more: str = "") -> subprocess.CompletedProcess[str]:
        """The command, as a process, on network 1 unless `more` says another."""
        url = f"mysql://{user}@localhost/leftovers?prefix=wp_&socket={self._network.database.socket}{more}"
        return import_plugin(url, *options)


def import_plugin(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "import-plugin", "--mysql", url, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def planted(rows: Rows) -> set[tuple[str, str, str]]:
    """Which of the plugin's transients are there: table, network, name."""
    return {(table, network, name) for table, network, _, name, _ in rows if name in PLUGINS}


@pytest.fixture
def leftovers(wordpress: WordPressNetwork) -> Iterator[Leftovers]:
    wordpress.database.query("CREATE DATABASE leftovers; GRANT ALL ON leftovers.* TO wordpress@localhost")
    yield Leftovers(wordpress)
    wordpress.database.query("DROP DATABASE leftovers; REVOKE ALL ON leftovers.* FROM wordpress@localhost")


@pytest.mark.parametrize(("network", "table"), [(1, "wp_options"), (2, "wp_3_options")])
def test_clean_deletes_the_networks_transients_of_the_plugin_and_not_one_row_more(
    leftovers: Leftovers, network: int, table: str
) -> None:
    """All eight patterns, in the network's meta rows and its main site's options; each is listed. Twice is no harm."""
    leftovers.plant(*PLUGINS, *OTHERS)
    before = leftovers.rows()
    done = leftovers.run("--clean", more=f"&network={network}")
    gone = before - leftovers.rows()
    assert (done.returncode, done.stdout) == (0, "")
    assert len(gone) == 32
    assert planted(gone) == {
        (*where, name) for where in (("wp_sitemeta", str(network)), (table, "")) for name in PLUGINS
    }
    assert before - gone == leftovers.rows()
    assert all(
        sum(line.startswith(t) and name in line for line in done.stderr.splitlines()) for t, _, name in planted(gone)
    )
    again = leftovers.run("--clean", more=f"&network={network}")
    assert (again.returncode, before - leftovers.rows()) == (0, gone)
    assert "nothing" in again.stderr


def test_without_clean_each_row_is_listed_and_stays(leftovers: Leftovers) -> None:
    leftovers.plant(*PLUGINS, *OTHERS)
    before = leftovers.rows()
    done = leftovers.run()
    assert (done.returncode, leftovers.rows()) == (0, before)
    listed = [tuple(line.split()[:2]) for line in done.stderr.splitlines()]
    assert {row for row in listed if row[0] in ("wp_sitemeta", "wp_options")} == {
        (table, name) for table in ("wp_sitemeta", "wp_options") for name in PLUGINS
    }


def test_the_token_alone_goes_to_stdout_and_its_row_stays(leftovers: Leftovers) -> None:
    """The network's own, not that of another network nor an older one in the options."""
    leftovers.plant("all_sites_cron_auth_token", value="another")
    leftovers.query("UPDATE wp_sitemeta SET meta_value = 'tr-0_k3n' WHERE meta_key LIKE '%auth_token' AND site_id = 1")
    before = leftovers.rows()
    done = leftovers.run("--clean")
    assert (done.returncode, done.stdout) == (0, "ALL_SITES_CRON_AUTH_TOKEN=tr-0_k3n\n")
    assert "tr-0_k3n" not in done.stderr
    assert leftovers.rows() == before


@pytest.mark.parametrize(
    ("stored", "printed"),
    [
        ("old", "ALL_SITES_CRON_AUTH_TOKEN=old\n"),
        ("a b$(id)#é", "ALL_SITES_CRON_AUTH_TOKEN='a b$(id)#é'\n"),
        ("a\\nb", ""),
        ("\x1b[2J", ""),
        ("", ""),
    ],
)
def test_a_token_is_printed_so_that_a_shell_reads_it_back_or_not_at_all(
    leftovers: Leftovers, stored: str, printed: str
) -> None:
    """One in the main site's options is taken, too: a network that was one site has it there."""
    leftovers.query(f"INSERT wp_options VALUES (NULL, 'all_sites_cron_auth_token', '{stored}', 'no')")
    done = leftovers.run()
    assert (done.returncode, done.stdout) == (0, printed)
    assert "\x1b" not in done.stderr


def test_where_nothing_was_left_it_says_so(leftovers: Leftovers) -> None:
    done = leftovers.run()
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing of the plugin" in done.stderr


def test_a_hostile_row_is_shown_on_one_line_and_cut_short(leftovers: Leftovers) -> None:
    leftovers.plant("_transient_dss_cron_\\n::error::\x1b[2J", value="##[group]\\n::error::x" + "y" * 5000)
    done = leftovers.run()
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if line.startswith("::") or len(line) > 300]
    assert "\x1b" not in done.stderr
    assert "##[" not in done.stderr


def test_a_row_without_a_value_is_listed(leftovers: Leftovers) -> None:
    """A meta value may be NULL."""
    leftovers.query("INSERT wp_sitemeta VALUES (NULL, 1, '_transient_dss_cron_x', NULL)")
    done = leftovers.run()
    assert (done.returncode, "_transient_dss_cron_x" in done.stderr) == (0, True)


def test_when_one_table_may_not_be_changed_none_is(leftovers: Leftovers) -> None:
    """All rows go in one transaction."""
    leftovers.query(
        "CREATE OR REPLACE USER half@localhost IDENTIFIED BY 'secret'; GRANT SELECT ON leftovers.* TO half@localhost;"
        "GRANT DELETE ON leftovers.wp_sitemeta TO half@localhost"
    )
    leftovers.plant(*PLUGINS)
    before = leftovers.rows()
    done = leftovers.run("--clean", user="half:secret")
    assert (done.returncode, leftovers.rows()) == (69, before)
    assert "wp_options" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_wordpress_itself_stored_is_found_and_cleaned(wordpress: WordPressNetwork) -> None:
    """The plugin's calls: a token as a site option, the last run as a site transient, an old one of the main site."""
    (wordpress.mu_plugins / "plant.php").write_text(
        "<?php if ( isset( $_GET['plant'] ) ) { add_action( 'init', function () {"
        "update_site_option( 'all_sites_cron_auth_token', 'from-wordpress' );"
        "set_site_transient( 'all_sites_cron_last_run_ts', time(), 600 );"
        "set_transient( 'dss_cron_sites', array( 1, 2 ), 600 ); exit; } ); }"
    )
    count = (
        "SELECT (SELECT COUNT(*) FROM wp_sitemeta WHERE meta_key LIKE '%transient%cron%'),"
        "(SELECT COUNT(*) FROM wp_options WHERE option_name LIKE '%transient%cron%')"
    )
    try:
        assert httpx.get(f"{wordpress.url}?plant=1", timeout=30).status_code == 200
        assert wordpress.database.query(count) == [["2", "2"]]
        url = wordpress.database.url
        done = import_plugin(url, "--clean")
        assert (done.returncode, done.stdout) == (0, "ALL_SITES_CRON_AUTH_TOKEN=from-wordpress\n")
        assert wordpress.database.query(count) == [["0", "0"]]
    finally:
        (wordpress.mu_plugins / "plant.php").unlink()
        wordpress.database.query("DELETE FROM wp_sitemeta WHERE meta_key = 'all_sites_cron_auth_token'")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgres://me:hunter2@localhost/db", 2),
        ("mysql://me:hunter2@localhost/db?network=x", 2),
        ("mysql://me:hunter2@127.0.0.1:1/db", 69),
    ],
)
def test_a_wrong_address_is_exit_code_2_an_unreachable_one_69_without_its_password(url: str, code: int) -> None:
    done = import_plugin(url, "--clean")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_network_that_is_not_there_is_named(leftovers: Leftovers) -> None:
    done = leftovers.run(more="&network=7")
    assert done.returncode == 69
    assert "network 7" in done.stderr
