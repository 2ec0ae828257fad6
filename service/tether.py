"""Run a command that ends when the process that started it dies, also of SIGKILL.

Between the two stands a small process, the tether, which looks every 20 ms whether the starter is still its parent.
If not, or on SIGTERM, SIGINT or SIGHUP, the command gets the signal, after the grace SIGKILL; and when it has ended,
what it left in its session is killed (an rq worker's horse has a process group of its own, but not a session).

The same on Linux and macOS. PR_SET_PDEATHSIG would add an end for a command whose starter and tether are killed at one
moment, PR_SET_CHILD_SUBREAPER one for what opens a session of its own.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any


def spawn(command: Sequence[str], grace: float = 10.0, **popen: Any) -> "subprocess.Popen[bytes]":
    """Start a command under a tether, out of reach of a terminal's Ctrl-C; `popen` as for subprocess.Popen.

    `grace`: seconds the command has after a signal. Exit code: the command's, or 128 + n if signal n ended it.
    """
    tether = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(grace), *command]
    return subprocess.Popen(tether, stdin=subprocess.DEVNULL, start_new_session=True, **popen)  # noqa: S603


def end(tether: "subprocess.Popen[bytes]") -> None:
    """End a command and wait for all of it; also for one whose tether was killed."""
    tether.terminate()
    tether.wait()
    _kill_session(tether.pid)


def _run(starter: int, grace: float, command: Sequence[str]) -> int:
    """The tether: run the command to its end; the exit code."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: received.append(number))
    child = subprocess.Popen(command, close_fds=False)  # noqa: S603 - open are those of `pass_fds`
    kill_at = float("inf")
    while (code := child.poll()) is None:
        if os.getppid() != starter:
            received.append(signal.SIGTERM)
        if received and kill_at == float("inf"):  # only once: a second signal would make rq drop its job
            kill_at = time.monotonic() + grace
            child.send_signal(received[0])
        if time.monotonic() >= kill_at:
            child.kill()
        time.sleep(0.02)
    _kill_session(os.getsid(0))
    return 128 - code if code < 0 else code


def _kill_session(session: int) -> None:
    """Send SIGKILL to all in a session but this process, until they are gone; for 1 s, if nobody collects them."""
    deadline, found = time.monotonic() + 1, True
    while found and time.monotonic() < deadline:
        found = False
        for pid in _pids():
            with suppress(ProcessLookupError, PermissionError):
                if os.getsid(pid) == session and pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)
                    found = True
        time.sleep(0.005 * found)


def _pids(*, from_ps: bool = sys.platform != "linux") -> list[int]:
    if from_ps:
        listing = subprocess.run(["/bin/ps", "-A", "-o", "pid="], capture_output=True, check=True)
        return [int(pid) for pid in listing.stdout.split()]
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - starts quicker


if __name__ == "__main__":
    sys.exit(_run(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
