"""The processes a network is made of: children of the test process that end with it, whatever ends it."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

USER = "www-data"  # of every daemon, and of PHP on the command line


class DaemonError(Exception):
    """A daemon did not start or a command failed; the text has the end of what it printed."""


class Daemons:
    """Foreground processes, each with its output in `{directory}/{name}.log`.

    The kernel sends them SIGTERM when the thread that started them ends (PR_SET_PDEATHSIG), so start them from the
    main thread. They have sessions of their own: Ctrl-C reaches them through `stop` only.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._running.items()}

    def start(self, name: str, command: Sequence[str | Path], ready: Callable[[], bool]) -> None:
        """Returns when `ready()` is true; raises DaemonError if the process ends before, or after 60 seconds."""
        log = self._directory / f"{name}.log"
        with log.open("wb") as output:
            self._running[name] = process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=USER,
                group=USER,
                extra_groups=[],
            )
        wait_until(lambda: process.poll() is not None or ready(), 60, f"{name} to start; see {log}")
        if process.poll() is not None:
            raise DaemonError(f"{name} ended with {process.returncode}: {log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """The last one started ends first; one that is still there after 20 seconds is killed."""
        while self._running:
            _, process = self._running.popitem()
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Database:
    """A private MariaDB on `{directory}/data`, reached only through the socket `{directory}/db.sock`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.socket = directory / "db.sock"

    @property
    def url(self) -> str:
        """The network's tables as the setting SITES names them."""
        return f"mysql://wordpress:wordpress@localhost/wordpress?socket={self.socket}"

    def create(self) -> None:
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={self._directory / 'data'}", *_INNODB]
        run([*install, "--skip-test-db", "--auth-root-authentication-method=normal"])

    def start(self, daemons: Daemons, *more: str) -> None:
        options = [f"--datadir={self._directory / 'data'}", f"--socket={self.socket}", *_INNODB]
        options += ["--skip-networking", "--skip-log-bin", "--max-connections=200", "--table-open-cache=4000"]
        daemons.start("mariadb", ["/usr/sbin/mariadbd", "--no-defaults", *options, *more], self._answers)

    def _answers(self) -> bool:
        ping = ["mariadb-admin", "--no-defaults", f"--socket={self.socket}", "--user=root", "ping"]
        return self.socket.exists() and subprocess.run(ping, capture_output=True, check=False).returncode == 0

    def query(self, sql: str, database: str = "wordpress") -> list[list[str]]:
        """The rows of all statements in `sql`, one after another, as text."""
        command = ["mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root", "--batch"]
        printed = run([*command, "--skip-column-names", database], stdin=sql)
        return [line.split("\t") for line in printed.splitlines()]


# One file for all tables makes and copies hundreds of them quickly; durability is given up for speed.
_INNODB = ["--skip-innodb-file-per-table", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"]


def run(
    command: Sequence[str | Path], *, stdin: str = "", cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    """What the command printed, run as USER with `env` added; raises DaemonError if it fails."""
    done = subprocess.run(
        command, input=stdin, cwd=cwd, env={**os.environ, **(env or {})}, user=USER, group=USER, extra_groups=[],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise DaemonError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def open_to_user(directory: Path) -> None:
    """USER may read everything in it and make files in itself, whatever this process's umask was."""
    subprocess.run(["chmod", "--recursive", "a+rX", directory], check=True)
    shutil.chown(directory, USER, USER)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises TimeoutError naming `what` when the condition is not true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.02)
