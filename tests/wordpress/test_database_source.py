"""The database source on tables in MariaDB, made for the test, and on those of a real WordPress network."""

import csv
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain

import pytest

from jobs.addresses import AddressGuard
from jobs.errors import SourceError
from jobs.mysql import Database
from jobs.sites import NEVER
from jobs.sources import DUE_PAGE, open_source
from jobs.sources.database import DatabaseSource
from jobs.sources.listing import State
from tests.wordpress.network import WordPressNetwork

pytestmark = [pytest.mark.wordpress, pytest.mark.timeout(300)]  # the first start builds the network
BLOGS = """CREATE TABLE wp_blogs (
  blog_id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, site_id BIGINT NOT NULL DEFAULT 1, public TINYINT DEFAULT 1,
  archived TINYINT DEFAULT 0, deleted TINYINT DEFAULT 0, spam TINYINT DEFAULT 0)"""
CRON = 'a:2:{i:1700000000;a:1:{s:1:"x";a:0:{}}s:7:"version";i:2;}'


class Tables:
    """A database `tables` with wp_blogs, empty, and what the tests put into it."""

    def __init__(self, network: WordPressNetwork) -> None:
        self._network = network
        self.sql(
            "DROP DATABASE IF EXISTS tables; CREATE DATABASE tables CHARACTER SET utf8mb4;"
            f"GRANT SELECT ON tables.* TO wordpress@localhost; USE tables; {BLOGS}",
            "mysql",
        )

    def sql(self, statements: str, database: str = "tables") -> None:
        self._network.database.query(statements, database)

    def site(self, number: int, *, table: str = "", collate: str = "utf8mb4_unicode_520_ci", **options: str) -> str:
        """The statements that make a site of network 1 with these options; without any, without their table."""
        table = table or ("wp_options" if number == 1 else f"wp_{number}_options")
        made = f"INSERT INTO wp_blogs (blog_id) VALUES ({number});"
        if options:
            made += (
                f"CREATE TABLE {table} (option_id BIGINT AUTO_INCREMENT PRIMARY KEY, option_name VARCHAR(191) UNIQUE,"
                f" option_value LONGTEXT) ENGINE=Aria COLLATE {collate};"
            )
        for name, value in options.items():
            made += f"INSERT INTO {table} (option_name, option_value) VALUES ('{name}', '{value}');"
        return made

    def make(self, *numbers: int, **options: str) -> None:
        given = ({"siteurl": f"http://s{number}.example", "cron": CRON} | options for number in numbers)
        self.sql("".join(self.site(number, **more) for number, more in zip(numbers, given, strict=True)))

    def source(self, parameters: str = "") -> DatabaseSource:
        url = f"mysql://wordpress:wordpress@localhost/tables?socket={self._network.database.socket}{parameters}"
        return DatabaseSource(Database.from_url(url))


@pytest.fixture
def tables(wordpress: WordPressNetwork) -> Iterator[Tables]:
    made = Tables(wordpress)
    yield made
    made.sql("DROP DATABASE tables")


def ids(source: DatabaseSource, after: str = "") -> list[str]:
    return [site.id for page in source.pages(after, 50) for site in page.sites]


def test_a_real_networks_sites_are_those_of_its_site_list_with_their_due_times(wordpress: WordPressNetwork) -> None:
    """The 60 public ones of 72, each with the time of its first event, and the database's clock beside them."""
    wordpress.arm()
    listed = {
        row["blog_id"]: row["url"].rstrip("/")
        for row in csv.DictReader(wordpress.site_list_csv().splitlines())
        if (row["public"], row["archived"], row["deleted"], row["spam"]) == ("1", "0", "0", "0")
    }
    url = wordpress.database.url
    with closing(open_source(url, feed_token=None, guard=AddressGuard())) as source:
        (page,) = source.pages("", 50)
        assert {site.id: site.url for site in page.sites} == listed
        assert len(listed) == 60 == source.remaining("")
        assert source.excluded == {"public": 3, "archived": 3, "deleted": 3, "spam": 3}
        assert source.problems.count == 0
        assert page.now is not None
        assert abs(page.now - time.time()) < 60
        assert {page.now - site.due > 500 for site in page.sites if site.due} == {True}  # `arm`: due for 600 s
        _, states = source.states(list(listed))
        assert states == {site.id: State(site.due or 0, 0.0) for site in page.sites}
        wordpress.arm(kinds="none")
        now, states = source.states(["1"])
        assert states["1"].due > now


def test_pages_are_walked_by_id_whatever_happens_meanwhile(tables: Tables) -> None:
    """A site archived or added behind the cursor takes effect, one before it makes no site come twice or never."""
    rows = ", ".join(f"({number})" for number in range(1, 2 * DUE_PAGE + 3))
    first = tables.site(1, siteurl="http://s.example").removeprefix("INSERT INTO wp_blogs (blog_id) VALUES (1);")
    views = "".join(f"CREATE VIEW wp_{n}_options AS SELECT * FROM wp_options;" for n in range(2, 2 * DUE_PAGE + 4))
    tables.sql(f"INSERT INTO wp_blogs (blog_id) VALUES {rows}; {first} {views}")
    with closing(tables.source()) as source:
        pages = source.pages("", 50)
        page = next(pages)
        assert [site.key for site in page.sites] == [str(number).zfill(20) for number in range(1, DUE_PAGE + 1)]
        assert page.cursor == page.sites[-1].key
        assert source.remaining(page.cursor) == DUE_PAGE + 2
        tables.sql(
            f"UPDATE wp_blogs SET archived = 1 WHERE blog_id IN (3, {DUE_PAGE + 2});"
            f"INSERT INTO wp_blogs (blog_id) VALUES ({2 * DUE_PAGE + 3}); DELETE FROM wp_blogs WHERE blog_id = 5"
        )
        rest = [int(site.id) for site in chain.from_iterable(page.sites for page in pages)]
        assert rest == [number for number in range(DUE_PAGE + 1, 2 * DUE_PAGE + 4) if number != DUE_PAGE + 2]
        assert ids(source, after=str(2 * DUE_PAGE + 1).zfill(20)) == ["1002", "1003"]
        assert len(next(source.pages("", 1000)).sites) == 1000


@pytest.mark.parametrize(
    ("cron", "due"),
    [
        (CRON, 1700000000),
        ('a:2:{s:7:"version";i:2;i:1700000000;a:0:{}}', 1700000000),
        ("a:1:{i:-5;a:0:{}}", 0),
        ("a:1:{i:-99999999999;a:0:{}}", 0),
        (f"a:1:{{i:{2**60};a:0:{{}}}}", NEVER),
        ("a:0:{}", NEVER),
        ('a:1:{s:7:"version";i:2;}', NEVER),
        ('a:1:{s:3:"abc";a:1:{i:1700000000;i:1;}}', NEVER),
        ("", NEVER),
        ("i:1700000000;", NEVER),
        ('s:5:"a:1:{i:1700000000;";', NEVER),
    ],
)
def test_the_due_time_is_the_schedules_first_key(tables: Tables, cron: str, due: int) -> None:
    """What core takes for no array, or for one without events, has nothing scheduled."""
    tables.make(1, cron=cron)
    with closing(tables.source()) as source:
        assert [site.due for page in source.pages("", 50) for site in page.sites] == [due]
        assert source.states(["1"])[1] == {"1": State(due, 0.0)}


def test_a_site_without_a_schedule_has_nothing_scheduled(tables: Tables) -> None:
    tables.sql(tables.site(1, siteurl="http://s.example"))
    with closing(tables.source()) as source:
        assert [site.due for page in source.pages("", 50) for site in page.sites] == [NEVER]


def test_bad_sites_are_named_and_the_rest_of_the_page_comes(tables: Tables) -> None:
    """No table of options (one such breaks the page's query), no siteurl, or one that cannot be called."""
    tables.make(1, 2, 9)
    tables.sql(tables.site(3) + tables.site(4) + tables.site(5, cron=CRON) + tables.site(6, siteurl=""))
    tables.sql(tables.site(7, siteurl="https://me:hunter2@s7.example/?x") + tables.site(8, siteurl=3000 * "x"))
    with closing(tables.source()) as source:
        assert ids(source) == ["1", "2", "9"]
        assert [problem.split(";")[0] for problem in source.problems.first] == [
            "database site 3: has no table wp_3_options",
            "database site 4: has no table wp_4_options",
            "database site 5: has no siteurl in wp_5_options",
            "database site 6: has no siteurl in wp_6_options",
            'database site 7: siteurl "https://***@s7.example/" contains a user name or password',
            f'database site 8: siteurl "{79 * "x"}…" longer than 2000 characters',
        ]
        assert source.problems.count == 6


def test_a_network_without_one_usable_site_is_an_error(tables: Tables) -> None:
    """A capped run that goes on behind the usable ones is none."""
    tables.sql(tables.site(3))
    with closing(tables.source()) as source:
        assert ids(source, after="2".zfill(20)) == []
        with pytest.raises(SourceError, match="not one usable site; database site 3: has no table wp_3_options"):
            ids(source)


def test_tables_of_different_collations_are_read_together(tables: Tables) -> None:
    """Networks have grown through WordPress's defaults; each keeps its characters."""
    for number, collate in enumerate(("latin1_swedish_ci", "utf8mb3_general_ci", "utf8mb4_unicode_ci"), 2):
        tables.sql(tables.site(number, siteurl="http://bücher.example", collate=collate))
    tables.make(1)
    with closing(tables.source()) as source:
        urls = [site.url for page in source.pages("", 50) for site in page.sites]
    assert urls == ["http://s1.example", *3 * ["http://xn--bcher-kva.example"]]


def test_states_tell_the_schedule_and_the_lock_now(tables: Tables) -> None:
    """The lock of a site with an object cache is not in the table; a site whose table is gone is left out."""
    tables.make(1, 2, _transient_doing_cron="1700000001.2500000000000000000000")
    tables.make(3, 4, _transient_doing_cron="nan")
    with closing(tables.source()) as source:
        tables.sql("DROP TABLE wp_4_options; DELETE FROM wp_2_options WHERE option_name = '_transient_doing_cron'")
        now, states = source.states(["1", "2", "3", "4", "5", "u-0123456789ab"])
        due = 1700000000
        assert states == {"1": State(due, 1700000001.25), "2": State(due, 0.0), "3": State(due, 0.0)}
        assert abs(now - time.time()) < 60
        assert source.states([])[1] == {}


def test_a_network_is_one_of_those_in_the_table(tables: Tables) -> None:
    """Only its sites are listed and counted; one that is not there is an error naming those that are."""
    tables.make(1, 2, 3, 4)
    tables.sql("UPDATE wp_blogs SET site_id = 7 WHERE blog_id > 1; UPDATE wp_blogs SET spam = 1 WHERE blog_id = 4")
    with closing(tables.source()) as first, closing(tables.source("&network=7")) as seventh:
        assert (ids(first), first.excluded, first.remaining("")) == (["1"], {}, 1)
        assert (ids(seventh), seventh.excluded, seventh.remaining("")) == (["2", "3"], {"spam": 1}, 2)
    with closing(tables.source("&network=2")) as source, pytest.raises(SourceError, match=r"networks that have: 1, 7$"):
        ids(source)


def test_a_prefix_without_a_network_is_an_error(tables: Tables) -> None:
    missing = r"'tables\.x_blogs' doesn't exist; is prefix=x_ that of a multisite"
    with closing(tables.source("&prefix=x_")) as source, pytest.raises(SourceError, match=missing):
        ids(source)


def test_flags_are_read_as_the_site_list_has_them(tables: Tables) -> None:
    """Some plugins store less than 0 in `public`; old networks have enums; the first flag that is wrong counts."""
    tables.make(1, 2, 3, 4)
    tables.sql(
        "ALTER TABLE wp_blogs DROP archived; ALTER TABLE wp_blogs ADD archived ENUM('0','1') NOT NULL DEFAULT '0';"
        "UPDATE wp_blogs SET archived = '1' WHERE blog_id = 3;"
        "UPDATE wp_blogs SET public = -1, spam = 1 WHERE blog_id = 2"
    )
    with closing(tables.source()) as source:
        assert ids(source) == ["1", "4"]
        assert source.excluded == {"public": 1, "archived": 1}


def test_a_connection_lost_midway_is_a_source_error(tables: Tables, wordpress: WordPressNetwork) -> None:
    """A run must not end as if the network ended there."""
    tables.make(1)
    with closing(tables.source()) as source:
        pages = source.pages("", 50)
        next(pages)
        ((connection,),) = wordpress.database.query("SELECT id FROM information_schema.processlist WHERE db = 'tables'")
        wordpress.database.query(f"KILL {connection}")
        with pytest.raises(SourceError, match="database: "):
            next(pages)
