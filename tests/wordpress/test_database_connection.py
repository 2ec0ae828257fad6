"""The connection to a network's database, on a real MariaDB: what it refuses, when it gives up, and its TLS."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pymysql
import pytest

from jobs.errors import SourceError
from jobs.mysql import Database, NoSuchTable, connect, rows
from tests.integration.processes import until
from tests.unit.test_engine_tls import Authority
from tests.wordpress import daemons
from tests.wordpress.network import WordPressNetwork

pytestmark = [pytest.mark.wordpress, pytest.mark.timeout(300)]  # the first start builds the network


@pytest.fixture
def database(wordpress: WordPressNetwork) -> Database:
    """With a user that may write."""
    return Database.from_url(wordpress.database.url)


@pytest.mark.parametrize("sql", ["DELETE FROM wp_options", "CREATE TABLE mine (a INT)", "DROP TABLE wp_options"])
def test_a_connection_changes_nothing_unless_asked_to(database: Database, sql: str) -> None:
    """Whatever its user may do."""
    with closing(connect(database)) as connection, pytest.raises(SourceError, match="READ ONLY transaction"):
        rows(connection, sql)


def test_a_connection_that_may_write_commits_at_once(database: Database) -> None:
    """All of Unicode goes there and comes back."""
    with closing(connect(database)) as reading, closing(connect(database, read_only=False)) as writing:
        rows(writing, "INSERT INTO wp_options (option_name, option_value) VALUES ('mine', %s)", ("é🎉%",))
        assert rows(reading, "SELECT option_value FROM wp_options WHERE option_name = 'mine'") == (("é🎉%",),)
        rows(writing, "DELETE FROM wp_options WHERE option_name LIKE 'mine%'")
        assert rows(reading, "SELECT 1 FROM wp_options WHERE option_name = 'mine'") == ()


def test_a_statement_that_takes_too_long_is_ended_by_the_server(database: Database) -> None:
    """The connection is usable afterwards."""
    with closing(connect(database, timeout=0.1)) as connection:
        with pytest.raises(SourceError, match="max_statement_time exceeded"):
            rows(connection, "SELECT SLEEP(60)")
        assert rows(connection, "SELECT 1") == ((1,),)


def test_a_connection_outlives_the_servers_patience(database: Database, wordpress: WordPressNetwork) -> None:
    """A listing waits for the walk between two pages, for minutes where sites hang; some hosts allow one."""
    wordpress.database.query("SET GLOBAL wait_timeout = 1")
    try:
        with closing(connect(database)) as connection:
            other = pymysql.connect(user="wordpress", password="wordpress", unix_socket=database.socket)
            other_id = str(other.thread_id())  # type: ignore[no-untyped-call]
            there = "SELECT id FROM information_schema.processlist"
            until(lambda: [other_id] not in wordpress.database.query(there), 20)
            assert rows(connection, "SELECT 1") == ((1,),)
            other.close()
    finally:
        wordpress.database.query("SET GLOBAL wait_timeout = 28800")


def test_a_missing_table_is_an_error_of_its_own(database: Database) -> None:
    with closing(connect(database)) as connection, pytest.raises(NoSuchTable, match=r"'wordpress\.none' doesn't exist"):
        rows(connection, "SELECT 1 FROM none")


@pytest.mark.parametrize("login", ["wordpress:hunter2", "nobody:hunter2", "wordpress:hunter2%C3%A9%F0%9F%8E%89"])
def test_a_wrong_login_is_an_error_without_the_password(database: Database, login: str) -> None:
    wrong = Database.from_url(f"mysql://{login}@localhost/wordpress?socket={database.socket}")
    with pytest.raises(SourceError, match="Access denied for user") as caught:
        connect(wrong)
    assert "hunter2" not in str(caught.value)


def test_tls_that_is_required_is_not_given_up(database: Database) -> None:
    """This server has none; by default that is taken."""
    wanted = Database.from_url(f"mysql://wordpress:wordpress@localhost/wordpress?socket={database.socket}&ssl=required")
    with pytest.raises(SourceError, match="SSL is required but the server doesn't support it"):
        connect(wanted)
    connect(database).close()


@pytest.fixture(scope="module")
def tls_socket(wordpress: WordPressNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The socket of a MariaDB whose certificate is for db.example, and the file of the authority that signed it."""
    folder = wordpress.directory / "tls"
    folder.mkdir()
    authority = Authority(tmp_path_factory.mktemp("authority"))
    authority.context("db.example")
    (signed,) = (file for file in authority.folder.glob("*.pem") if file != authority.file)
    shutil.copy(signed, folder / "server.pem")
    daemons.open_to_user(folder)
    server, running = daemons.Database(folder), daemons.Daemons(folder)
    server.create()
    try:
        server.start(running, f"--ssl-cert={folder / 'server.pem'}", f"--ssl-key={folder / 'server.pem'}")
        server.query("CREATE USER tls@localhost IDENTIFIED BY 'tls' REQUIRE SSL", "mysql")
        yield server.socket, authority.file
    finally:
        running.stop()


def test_tls_is_taken_where_the_server_has_it(tls_socket: tuple[Path, Path]) -> None:
    """`required` verifies nothing; this user may not come without TLS."""
    for more in ("", "&ssl=required"):
        url = f"mysql://tls:tls@localhost/information_schema?socket={tls_socket[0]}{more}"
        with closing(connect(Database.from_url(url))) as connection:
            assert rows(connection, "SHOW STATUS LIKE 'Ssl_version'")[0][1].startswith("TLS")


def test_a_certificate_is_verified_with_the_hosts_name(tls_socket: tuple[Path, Path]) -> None:
    """By the authority of a file; the system's do not know this one, and another name is refused."""
    socket, authority = tls_socket
    url = f"mysql://tls:tls@HOST/information_schema?socket={socket}&ssl="
    connect(Database.from_url(url.replace("HOST", "db.example") + str(authority))).close()
    for host, trusted in (("db.example", "verified"), ("other.example", str(authority))):
        with pytest.raises(SourceError, match="certificate verify failed"):
            connect(Database.from_url(url.replace("HOST", host) + trusted))
