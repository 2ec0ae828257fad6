"""`import-plugin`: what the PHP plugin left in a network's tables (its Auth.php and uninstall.php say where)."""

import re
import shlex
from contextlib import closing
from functools import partial

import typer

from jobs.errors import SourceError
from jobs.mysql import Connection, Database, connect, rows
from jobs.plain_text import plain
from service.commands.environment import OK, say

TOKEN = "all_sites_cron_auth_token"  # noqa: S105 - the name of its option
TRANSIENTS = "^_(site_)?transient_(timeout_)?(dss|all_sites)_cron_"  # a regular expression: its `_` is no wildcard
note = partial(say, stderr=True)


def import_plugin(*, mysql: str, clean: bool) -> int:
    """Print the token for pasting, on stdout; list the transients and, with `clean`, delete those rows, all or none."""
    database = Database.from_url(mysql, "--mysql")
    transients, tokens = 0, []
    with closing(connect(database, read_only=not clean)) as connection:
        rows(connection, "START TRANSACTION")
        for table, kind, column, whose in _tables(connection, database):
            select = f"SELECT {kind}_id, {column}, COALESCE({kind}_value, '') FROM `{table}`"  # noqa: S608 - the prefix is checked
            wanted = f" WHERE {whose} AND ({column} = %s OR {column} REGEXP %s) ORDER BY 1"
            found = list(rows(connection, select + wanted, [TOKEN, TRANSIENTS]))
            tokens += [(table, value) for _, name, value in found if name == TOKEN and value]
            found = [row for row in found if re.match(TRANSIENTS, row[1])]  # SQL compared without case
            for _, name, value in found:
                note(f"{table}  {plain(name)}  {plain(value, 60)}")
            if found and clean:
                rows(connection, f"DELETE FROM `{table}` WHERE {kind}_id IN %s", [[row[0] for row in found]])  # noqa: S608
            transients += len(found)
        rows(connection, "COMMIT")
    what = "deleted" if clean else "found; --clean deletes them"
    note(f"transients of the plugin: {transients} {what}" if transients else "nothing of the plugin to delete")
    _show(tokens)
    return OK


def _tables(connection: "Connection", database: Database) -> list[tuple[str, str, str, str]]:
    """(name, its columns' first word, the column of names, condition): the network's own table, then its main site's.

    In the latter a network that was a single site has older rows.
    """
    prefix, network = database.prefix, database.network
    is_main = "s.id = b.site_id AND s.domain = b.domain AND s.path = b.path"
    sites = f"SELECT blog_id FROM `{prefix}blogs` b LEFT JOIN `{prefix}site` s ON {is_main} WHERE b.site_id = %s"  # noqa: S608
    if not (main := rows(connection, f"{sites} ORDER BY s.id IS NULL, blog_id LIMIT 1", [network])):
        raise SourceError(f"network {network} has no site in {prefix}blogs")
    options = (database.options(main[0][0]), "option", "option_name", "TRUE")
    return [(f"{prefix}sitemeta", "meta", "meta_key", f"site_id = {network}"), options]


def _show(tokens: list[tuple[str, str]]) -> None:
    if not tokens:
        note(f"no token of the plugin: {TOKEN} is not set (a constant of wp-config.php is not in the database)")
        return
    table, token = tokens[0]
    if not token.isprintable():
        note(f"{table}  {TOKEN} has unprintable characters: make a new token")
    else:
        note(f"{table}  {TOKEN} stays; a constant of that name in wp-config.php was stronger than this token")
        typer.echo(f"{TOKEN.upper()}={shlex.quote(token)}")
