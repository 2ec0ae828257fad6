"""A real WordPress network on loopback whose sites' cron events are counted when they really run."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.wordpress.build import HERE, PUBLIC_SITES, built_network, php_fpm
from tests.wordpress.daemons import Daemons, Database, open_to_user, wait_until

_EVENT = "test_event"
_CRON = "wp-cron.php"
_REQUEST = re.compile(r'"[A-Z]+ ([^ ?"]+)')  # WordPress also tries TLS on this port
# WordPress makes those of its own events that a site lacks due at once; so every site has them, far ahead.
_HOURS = {"hourly": 1, "twicedaily": 12, "daily": 24, "weekly": 168}
_OWN_EVENTS = {
    "wp_privacy_delete_old_export_files": "hourly",
    **dict.fromkeys(("wp_https_detection", "wp_version_check", "wp_update_plugins", "wp_update_themes"), "twicedaily"),
    **dict.fromkeys(("update_network_counts", "wp_update_user_counts"), "twicedaily"),
    **dict.fromkeys(("recovery_mode_clean_expired_keys", "wp_scheduled_delete"), "daily"),
    **dict.fromkeys(("delete_expired_transients", "wp_scheduled_auto_draft_delete"), "daily"),
    "wp_site_health_scheduled_check": "weekly",
}


class WordPressNetwork:
    """60 public sites (the main site, id 1, and 59 in sub-directories), 3 each archived, spam, deleted, non-public.

    MariaDB on a socket, php-fpm with 8 children, nginx on 127.0.0.1:`port`; all on a private copy of the database.
    As a context manager it starts and stops. A new network has nothing due. `public`: another number of public sites.

    `database.socket`: where MariaDB listens (user, password and database are `wordpress`).
    `directory`: everything of this start: `access.log`, `php-error.log`, the daemons' output.
    `mu_plugins`: its PHP files are loaded into every site, also ones added while the network runs.
    """

    def __init__(self, public: int = PUBLIC_SITES) -> None:
        self._arming = 0
        self._public = public

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Builds the network first if this checkout has not built it yet (6 s on 2 cores)."""
        built = built_network(self._public)
        _remove_leftovers(built)
        self.directory = Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=built))
        self.port = _free_port()
        self.domain = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.domain}/"
        self.database = Database(self.directory)
        self.mu_plugins = self.directory / "mu-plugins"
        self.daemons = Daemons(self.directory)
        self.mu_plugins.mkdir()
        shutil.copy(HERE / "record-events.php", self.mu_plugins)
        subprocess.run(["cp", "--archive", "--reflink=auto", built / "data", self.directory], check=True)
        php, nginx = self._configured("php-fpm.conf", built), self._configured("nginx.conf", built)
        open_to_user(self.directory)
        fpm_socket = self.directory / "php-fpm.sock"
        try:
            self.database.start(self.daemons)
            self._move_to_domain()
            self.arm(kinds="none")
            self.daemons.start("php-fpm", [php_fpm(), "--nodaemonize", "--fpm-config", php], fpm_socket.exists)
            self.daemons.start("nginx", ["/usr/sbin/nginx", "-e", "stderr", "-c", nginx], self._listens)
        except BaseException:
            self.daemons.stop()
            raise

    def stop(self) -> None:
        self.daemons.stop()
        shutil.rmtree(self.directory)

    def _configured(self, name: str, built: Path) -> Path:
        text = (HERE / name).read_text()
        values = {"RUN": self.directory, "WWW": built / "www", "PORT": self.port, "DOMAIN": self.domain}
        for key, value in {**values, "SOCKET": self.database.socket}.items():
            text = text.replace(f"@{key}@", str(value))
        path = self.directory / name
        path.write_text(text)
        return path

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _move_to_domain(self) -> None:
        """Everywhere WordPress keeps a site's address (it drops the colon when it makes a site on HOST:PORT)."""
        sql = [f"UPDATE wp_site SET domain = '{self.domain}'", f"UPDATE wp_blogs SET domain = '{self.domain}'"]
        sql.append(f"UPDATE wp_sitemeta SET meta_value = '{self.url}' WHERE meta_key = 'siteurl'")
        for site_id, path in self.database.query("SELECT blog_id, path FROM wp_blogs"):
            url = f"http://{self.domain}{path}".rstrip("/")
            sql.append(
                f"UPDATE {_options(site_id)} SET option_value = '{url}' WHERE option_name IN ('siteurl', 'home')"
            )
        self._change(sql)

    def _change(self, sql: list[str]) -> None:
        self.database.query("START TRANSACTION;" + ";".join(sql) + ";COMMIT")

    def _ids(self, where: str = "TRUE") -> set[int]:
        return {int(site_id) for (site_id,) in self.database.query(f"SELECT blog_id FROM wp_blogs WHERE {where}")}

    def public_ids(self) -> set[int]:
        return self._ids("public = 1 AND archived = 0 AND deleted = 0 AND spam = 0")

    def excluded_ids(self) -> set[int]:
        return self._ids() - self.public_ids()

    def site_urls(self) -> dict[int, str]:
        """blog_id → the site's `siteurl`, without a trailing slash: `{siteurl}/wp-cron.php` is what is called."""
        rows = self.database.query("SELECT blog_id, CONCAT('http://', domain, path) FROM wp_blogs ORDER BY blog_id")
        return {int(site_id): url.rstrip("/") for site_id, url in rows}

    def site_list_csv(self) -> str:
        """As `wp site list --fields=blog_id,url,public,archived,deleted,spam --format=csv` prints it."""
        fields = "blog_id, CONCAT('http://', domain, path), public, archived, deleted, spam"
        rows = self.database.query(f"SELECT {fields} FROM wp_blogs ORDER BY blog_id")
        return "".join(",".join(row) + "\n" for row in [["blog_id,url,public,archived,deleted,spam"], *rows])

    def arm(self, events: int = 1, kinds: Literal["all", "public", "none"] = "all") -> None:
        """Gives sites `events` due events and the others none, removes every cron lock, and counts from zero.

        `all`: excluded sites too, so that calling one by mistake is seen.
        """
        self._arming += 1
        armed = {"all": self._ids(), "public": self.public_ids(), "none": set[int]()}[kinds]
        sql = []
        for site_id in self._ids():
            table, cron = _options(site_id), _cron_option(self._arming, events if site_id in armed else 0)
            sql.append(f"DELETE FROM {table} WHERE option_name IN ('cron', '_transient_doing_cron')")
            sql.append(f"INSERT INTO {table} (option_name, option_value, autoload) VALUES ('cron', '{cron}', 'yes')")
        self._change(sql)
        self._log_start = len(self._access_log())

    def ran(self) -> dict[int, int]:
        """blog_id → how many events ran since `arm`; a site where none ran is not in it."""
        counted = f"SELECT blog_id, COUNT(*) FROM test_events_ran WHERE arming = {self._arming} GROUP BY blog_id"
        return {int(site_id): int(count) for site_id, count in self.database.query(counted)}

    def triggers(self) -> dict[int, int]:
        """blog_id → how many requests its wp-cron.php got since `arm`, whatever came of them.

        WordPress answers for archived, spam and deleted sites without running their events: only this shows a call.
        """
        ids = {path: int(site_id) for site_id, path in self.database.query("SELECT blog_id, path FROM wp_blogs")}
        lines = self._access_log()[self._log_start :]
        requested = (match[1] for line in lines if (match := _REQUEST.search(line)))
        return Counter(ids[path.removesuffix(_CRON)] for path in requested if path.endswith(_CRON))

    def _access_log(self) -> list[str]:
        log = self.directory / "access.log"
        text = log.read_text() if log.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()  # a line may be half written

    def still_due(self) -> set[int]:
        """The sites that have an event of `arm` in their schedule."""
        return self._with_option(f"option_name = 'cron' AND option_value LIKE '%{_EVENT}%'")

    def locked(self) -> set[int]:
        """The sites with a `doing_cron` lock."""
        return self._with_option("option_name = '_transient_doing_cron'")

    def _with_option(self, where: str) -> set[int]:
        selects = (f"SELECT {site_id} FROM {_options(site_id)} WHERE {where}" for site_id in self._ids())
        return {int(site_id) for (site_id,) in self.database.query(" UNION ALL ".join(selects))}

    def wait_idle(self, seconds: float = 30) -> None:
        """Returns when all that was requested before has ended, after its answer too.

        wp-cron.php answers before it does anything, so look at `ran` and `triggers` only after this. PHP's processes
        take requests in order: when one answers this, those that came before are at work or done.
        """
        wait_until(self._idle, seconds, "PHP to become idle")

    def _idle(self) -> bool:
        with urllib.request.urlopen(f"{self.url}fpm-status?json", timeout=30) as answer:
            return bool(json.load(answer)["active processes"] == 1)  # the one that answers


def _options(site_id: int | str) -> str:
    return "wp_options" if int(site_id) == 1 else f"wp_{site_id}_options"


def _cron_option(arming: int, events: int) -> str:
    """The `cron` option: time → hook → key of the arguments → event, in time order (WordPress wp-includes/cron.php)."""
    now = int(time.time())
    schedule: dict[object, object] = {}
    for number in range(events):
        arguments = {0: arming, 1: number}
        event = {"schedule": False, "args": arguments}
        schedule[now - 600 + number] = {_EVENT: {hashlib.md5(_serialized(arguments).encode()).hexdigest(): event}}
    no_arguments = hashlib.md5(_serialized({}).encode()).hexdigest()
    schedule[now + 30 * 86400] = {
        hook: {no_arguments: {"schedule": often, "args": {}, "interval": _HOURS[often] * 3600}}
        for hook, often in _OWN_EVENTS.items()
    }
    return _serialized({**schedule, "version": 2})


def _serialized(value: object) -> str:
    """PHP's serialize() of false, integers, ASCII strings and arrays."""
    match value:
        case bool():
            return f"b:{int(value)};"
        case int():
            return f"i:{value};"
        case str():
            return f's:{len(value)}:"{value}";'
        case dict():
            return f"a:{len(value)}:{{{''.join(_serialized(k) + _serialized(v) for k, v in value.items())}}}"
    raise TypeError(f"not serialized here: {value!r}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _remove_leftovers(built: Path) -> None:
    """The copies of test processes that were killed."""
    for run in built.glob("run-*"):
        if not Path("/proc", run.name.split("-")[1]).exists():
            shutil.rmtree(run, ignore_errors=True)  # another test process may be at it too
