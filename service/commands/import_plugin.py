"""`import-plugin`: what the PHP plugin left in a network's tables (its Auth.php and uninstall.php say where)."""

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import NamedTuple

import typer

from jobs.errors import SourceError
from jobs.mysql import Connection, Database, connect, rows
from jobs.plain_text import plain
from service.commands.environment import OK, say

TOKEN = "all_sites_cron_auth_token"  # noqa: S105 - the name of its option
TRANSIENTS = "^_(site_)?transient_(timeout_)?(dss|all_sites)_cron_"  # a regular expression: its `_` is no wildcard
note = partial(say, stderr=True)


class Row(NamedTuple):
    """A name and its value in `table`; `id` is of the column `key`, its primary key."""

    table: str
    key: str
    id: int
    name: str
    value: str


def import_plugin(*, mysql: str, clean: bool) -> int:
    """Print the token for pasting, on stdout; list the transients and, with `clean`, delete those rows, all or none."""
    database = Database.from_url(mysql, "--mysql")
    with closing(connect(database, read_only=not clean)) as connection:
        rows(connection, "START TRANSACTION")
        found = list(_found(connection, database))
        transients = [row for row in found if re.match(TRANSIENTS, row.name)]  # SQL compared without case
        for row in transients:
            note(f"{row.table}  {plain(row.name)}  {plain(row.value, 60)}")
        for table, key in dict.fromkeys((row.table, row.key) for row in transients if clean):
            ids = [row.id for row in transients if row.table == table]
            rows(connection, f"DELETE FROM `{table}` WHERE {key} IN %s", [ids])  # noqa: S608 - the prefix is checked
        rows(connection, "COMMIT")
    what = "deleted" if clean else "found; --clean deletes them"
    note(f"transients of the plugin: {len(transients)} {what}" if transients else "nothing of the plugin to delete")
    _show([row for row in found if row.name == TOKEN and row.value])
    return OK


def _found(connection: "Connection", database: Database) -> Iterator[Row]:
    """The network's own rows, then those of its main site, where a network that was a single site has older ones."""
    prefix, network = database.prefix, database.network
    is_main = "s.id = b.site_id AND s.domain = b.domain AND s.path = b.path"
    sites = f"SELECT blog_id FROM `{prefix}blogs` b LEFT JOIN `{prefix}site` s ON {is_main} WHERE b.site_id = %s"  # noqa: S608
    if not (main := rows(connection, f"{sites} ORDER BY s.id IS NULL, blog_id LIMIT 1", [network])):
        raise SourceError(f"network {network} has no site in {prefix}blogs")
    for table, kind, name, whose in (
        (f"{prefix}sitemeta", "meta", "meta_key", f"site_id = {network}"),
        (database.options(main[0][0]), "option", "option_name", "TRUE"),
    ):
        select = f"SELECT {kind}_id, {name}, COALESCE({kind}_value, '') FROM `{table}`"  # noqa: S608 - the prefix is checked
        select += f" WHERE {whose} AND ({name} = %s OR {name} REGEXP %s) ORDER BY 1"
        yield from (Row(table, f"{kind}_id", *row) for row in rows(connection, select, [TOKEN, TRANSIENTS]))


def _show(tokens: list[Row]) -> None:
    if not tokens:
        note(f"no token of the plugin: {TOKEN} is not set (a constant of wp-config.php is not in the database)")
    elif not tokens[0].value.isprintable():
        note(f"{tokens[0].table}  {TOKEN} has unprintable characters: make a new token")
    else:
        note(f"{tokens[0].table}  {TOKEN} stays; a constant of that name in wp-config.php was stronger than this token")
        typer.echo(f"{TOKEN.upper()}={shlex.quote(tokens[0].value)}")
