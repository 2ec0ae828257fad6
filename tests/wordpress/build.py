"""Makes the network once: WordPress's files and a database, kept for later test runs."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.wordpress.daemons import DaemonError, Daemons, Database, open_to_user, run

HERE = Path(__file__).parent
PUBLIC_SITES = 60  # the main site and /site1/ to /site59/
EXCLUDED_OF_EACH_KIND = 3  # archived, spam, deleted, non-public
_WORDPRESS = Path("/usr/share/wordpress")  # Debian's; its folder of themes and languages is the next line's
_CONTENT = Path("/var/lib/wordpress/wp-content")
_LONGEST_SOCKET = 107  # bytes in a Unix socket's address (sockaddr_un)


def missing() -> list[str]:
    """The programs and files of install-packages.sh that are not on this machine."""
    needed = [
        *(_WORDPRESS / "wp-cron.php", _CONTENT, Path("/usr/sbin/mariadbd"), Path("/usr/sbin/nginx")),
        *(Path("/usr/bin/php"), Path("/usr/bin/mariadb-install-db"), Path("/usr/bin/setpriv")),
    ]
    return [str(path) for path in needed if not path.exists()] + ([] if _php_fpms() else ["/usr/sbin/php-fpm"])


def php_fpm() -> Path:
    """The newest php-fpm; Debian's name of the program has PHP's version in it."""
    return _php_fpms()[-1]


def _php_fpms() -> list[Path]:
    return sorted(Path("/usr/sbin").glob("php-fpm[0-9]*"))


def built_network(public: int = PUBLIC_SITES) -> Path:
    """A folder with `www` (WordPress) and `data` (the database, at rest); made if it is not there yet.

    Not to be changed: a network is started on a copy of `data`. The sites' domain in it is 127.0.0.1 without a port.
    """
    root = _kept_where()
    name = f"wordpress-{_fingerprint()}" + (f"-{public}" if public != PUBLIC_SITES else "")
    with (root / "wordpress.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / name).exists():
            unfinished = root / f"{name}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            _build(unfinished, public)
            unfinished.rename(root / name)
    return root / name


def _build(directory: Path, public: int) -> None:
    www = directory / "www"
    shutil.copytree(_WORDPRESS, www)  # symbolic links are followed: ABSPATH must be this folder
    shutil.copytree(_CONTENT, www / "wp-content", dirs_exist_ok=True)
    shutil.copy(HERE / "wp-config.php", www)
    shutil.copy(HERE / "install.php", directory)
    (directory / "mu-plugins").mkdir()
    open_to_user(directory)
    database = Database(directory)
    database.create()
    daemons = Daemons(directory)
    try:
        database.start(daemons)
        database.query(
            "CREATE DATABASE wordpress CHARACTER SET utf8mb4;"
            "CREATE USER wordpress@localhost IDENTIFIED BY 'wordpress';"
            "GRANT ALL ON wordpress.* TO wordpress@localhost;"
            "CREATE TABLE wordpress.test_events_ran"
            " (blog_id BIGINT, arming INT, number INT, ran_at DOUBLE, KEY (arming, blog_id))",
            database="mysql",
        )
        env = {
            "WORDPRESS_DB_SOCKET": str(database.socket),
            "WORDPRESS_DOMAIN": "127.0.0.1",
            "WORDPRESS_MU_PLUGINS": str(directory / "mu-plugins"),
        }
        install: list[str | Path] = ["php", "-d", "error_reporting=E_ERROR", "-d", "opcache.enable_cli=1"]
        install += [directory / "install.php", str(public - 1), str(EXCLUDED_OF_EACH_KIND)]
        run(install, cwd=www, env=env | {"WORDPRESS_SINGLE": "1"})
        run(install, cwd=www, env=env)
    finally:
        daemons.stop()


def _kept_where() -> Path:
    """`.data` of the checkout if the daemons' user can reach it, else a folder in the system's temporary one."""
    data = HERE.parents[1] / ".data"
    data.mkdir(exist_ok=True)
    longest = data / f"wordpress-{'0' * 16}" / "run-0000000-00000000" / "php-fpm.sock"
    reachable = all(folder.stat().st_mode & 0o001 for folder in (data, *data.parents))
    if reachable and len(bytes(longest)) <= _LONGEST_SOCKET:
        return data
    folder = Path(tempfile.gettempdir()) / "all-sites-cron-tests"
    folder.mkdir(exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise DaemonError(f"{folder} belongs to another user; remove it")
    folder.chmod(0o755)
    return folder


def _fingerprint() -> str:
    """Changes with the files that make the network and with the packages it is made of."""
    digest = hashlib.sha256()
    for name in ("build.py", "daemons.py", "install.php", "wp-config.php"):
        digest.update((HERE / name).read_bytes())
    packages = ["dpkg-query", "--show", "wordpress", "mariadb-server-core", "php-fpm", "wordpress-theme-*"]
    digest.update(subprocess.run(packages, capture_output=True, check=False).stdout)
    return digest.hexdigest()[:16]
