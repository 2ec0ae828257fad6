"""The network's own database, named by `mysql://user:password@host[:port]/database?prefix=wp_&network=1`."""

import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from jobs.errors import SettingsError, SourceError
from jobs.outbound import trusting
from jobs.plain_text import plain

if TYPE_CHECKING:
    import pymysql

Connection: TypeAlias = "pymysql.connections.Connection[pymysql.cursors.Cursor]"
ALLOWED = (
    "mysql://user:password@host[:port]/database, special characters in user and password as %XX, "
    "behind a ? also prefix=wp_, network=1, socket=/path, ssl=required, ssl=verified or ssl=/path/of/ca.pem"
)
_PARAMETERS = {
    "prefix": re.compile(r"[A-Za-z0-9_$]{1,40}"),  # goes into SQL
    "network": re.compile(r"[1-9][0-9]{0,17}"),
    "socket": re.compile(r"/.+"),
    "ssl": re.compile(r"required|verified|/[^\0]+"),
}
_NO_SUCH_TABLE = 1146
IDLE_SECONDS = 28800  # between two statements; a listing waits for the walk, and a server may allow a minute


class NoSuchTable(SourceError):
    """A table of the statement does not exist."""


@dataclass(frozen=True)
class Database:
    """Where the tables of a network are.

    `prefix`: wp-config.php's $table_prefix. `network`: its id, column site_id of the table of blogs.
    `ssl`: None: TLS if the server has it; `required`: TLS or no connection; `verified`, or a CA file: the
    certificate is verified, too, by the system's certificates or that file's.
    """

    user: str
    password: str = field(repr=False)
    host: str
    port: int
    name: str
    network: int = 1
    prefix: str = "wp_"
    socket: str | None = None
    ssl: str | None = None

    @classmethod
    def from_url(cls, url: str, variable: str = "ALL_SITES_CRON_SITES") -> "Database":
        """Raises SettingsError, which calls the URL `variable` and repeats nothing of it but parameters' names."""
        try:
            parts = urlsplit(url.strip())
            port = parts.port or 3306
            parameters = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:  # its text may repeat a password
            raise SettingsError(f"{variable} is no mysql:// URL; allowed is {ALLOWED}") from None
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        name, host = unquote(parts.path.removeprefix("/")), parts.hostname or ""
        complete = user and name and "/" not in name and (host or "socket" in parameters)
        if parts.scheme != "mysql" or not complete or parts.fragment:
            raise SettingsError(f"{variable} lacks a part or has one too many; allowed is {ALLOWED}")
        wrong = [k for k, value in parameters.items() if k not in _PARAMETERS or not _PARAMETERS[k].fullmatch(value)]
        if wrong:
            raise SettingsError(f"{variable} has a wrong parameter {plain(', '.join(wrong), 80)}; allowed is {ALLOWED}")
        if find_spec("pymysql") is None:
            needs = "which needs PyMySQL: pip install 'all-sites-cron[mysql]'"
            raise SettingsError(f"{variable} is a mysql:// URL, {needs}")
        _tls(parameters.get("ssl"))
        more = {key: value for key, value in parameters.items() if key != "network"}
        return cls(user, password, host, port, name, int(parameters.get("network", 1)), **more)

    def options(self, site_id: int) -> str:
        """The name of a site's table of options (WordPress wpdb::get_blog_prefix)."""
        return f"{self.prefix}options" if site_id <= 1 else f"{self.prefix}{site_id}_options"


def connect(database: Database, *, read_only: bool = True, timeout: float = 30.0) -> "Connection":
    """A connection with autocommit. `timeout`: seconds for one statement.

    Raises SourceError; SettingsError where the CA file is none any more.
    """
    import pymysql

    with _told():
        connection = pymysql.connect(
            user=database.user,
            password=database.password.encode(),  # of a str it makes Latin-1
            host=database.host,
            port=database.port,
            database=database.name,
            unix_socket=database.socket,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=min(timeout, 10),
            read_timeout=timeout + 5,  # the server's own timeout comes first
            write_timeout=timeout + 5,
            ssl=_tls(database.ssl),
        )
    maria = "MariaDB" in rows(connection, "SELECT VERSION()")[0][0]
    limit = f"max_statement_time = {timeout:g}" if maria else f"max_execution_time = {int(timeout * 1000)}"
    rows(connection, f"SET SESSION {limit}, wait_timeout = {IDLE_SECONDS}")
    if read_only:
        rows(connection, "SET SESSION TRANSACTION READ ONLY")
    return connection


def rows(connection: "Connection", sql: str, values: Sequence[object] = ()) -> tuple[tuple[Any, ...], ...]:
    """What a statement answers; `values` go in the places of its `%s`. Raises SourceError, of it NoSuchTable."""
    with _told(), connection.cursor() as cursor:
        cursor.execute(sql, values or None)  # None: a % stands for itself
        return tuple(cursor.fetchall())


@contextmanager
def _told() -> Iterator[None]:
    """Makes a SourceError of what PyMySQL raises; its text has the server's words and no password."""
    import pymysql

    try:
        yield
    except (pymysql.Error, UnicodeError) as error:  # the latter: a host that can be no name
        text = "database: " + plain(str(error.args[-1] if error.args else "") or type(error).__name__)
        raise (NoSuchTable if error.args[:1] == (_NO_SUCH_TABLE,) else SourceError)(text) from None


def _tls(wanted: str | None) -> ssl.SSLContext | None:
    """PyMySQL's own `ssl_verify_identity` does not compare the host's name with the system's certificates."""
    if wanted is None:
        return None
    context = trusting(wanted if wanted.startswith("/") else None, "a mysql:// URL has ssl=")
    if wanted == "required":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
