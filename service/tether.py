"""Run a command that ends when the process that started it dies, also of SIGKILL.

`python -m service.tether [--grace=SECONDS] -- command args…`, or `spawn()` from Python.

The tether is the parent of the command. It learns of the death of its own parent from a pipe whose write end only
that parent holds (`spawn`: its stdin), and besides, once a second, from the parent's id. Then, or on SIGTERM, SIGINT
or SIGHUP, the command gets the signal, and after the grace SIGKILL. What the command leaves behind (an rq worker's
horse has a process group of its own) is killed when the command has ended; Linux hands it to the tether as a child
(PR_SET_CHILD_SUBREAPER). If the tether itself is killed, Linux sends the command SIGTERM (PR_SET_PDEATHSIG; the tether
has one thread, so the thread that this follows is the process).

Exit code: the command's, 128 + n if signal n ended it, 127 if it cannot be run. Few imports: this starts in 16 ms.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36


def spawn(command: Sequence[str], grace: float = 10.0, **popen: Any) -> subprocess.Popen[bytes]:
    """Start a command under a tether; `popen` as for subprocess.Popen, without `stdin`.

    `terminate()` ends the command within `grace` seconds. Closing the result's `stdin`, as `communicate()` does,
    ends it too. A terminal's Ctrl-C does not reach it.
    """
    import subprocess  # not at the top: the tether itself must start quickly

    tether = [sys.executable, "-I", "-S", os.path.abspath(__file__), "--lifeline", f"--grace={grace}", "--"]  # noqa: PTH100 - no pathlib here
    return subprocess.Popen([*tether, *command], stdin=subprocess.PIPE, start_new_session=True, **popen)  # noqa: S603


def run(command: Sequence[str], grace: float, lifeline: int | None) -> int:
    """Run the command to its end and give back its exit code; `lifeline`: the read end of the parent's pipe."""
    parent = os.getppid()
    wake_up, wake_up_end = os.pipe()  # non-inheritable, as all of Python's
    os.set_blocking(wake_up_end, False)
    signal.set_wakeup_fd(wake_up_end)
    for caught in (*_STOP, signal.SIGCHLD):
        signal.signal(caught, lambda *_: None)
    child = _start(command, keep_stdin=lifeline is None)
    watched = [wake_up] if lifeline is None else [wake_up, lifeline]
    parent_lives, kill_at = True, float("inf")
    family: set[int] = set()
    while (status := _reap(child)) is None:
        ready = select.select(watched, [], [], max(0.0, min(1.0, kill_at - time.monotonic())))[0]
        received = set(os.read(wake_up, 1024)) if wake_up in ready else set()
        if parent_lives and (lifeline in ready or os.getppid() != parent):
            parent_lives, watched = False, [wake_up]
            received.add(signal.SIGTERM)
        if received.intersection(_STOP) and kill_at == float("inf"):
            kill_at = time.monotonic() + grace
            if sys.platform != "linux":
                family = _descendants()  # nobody hands us orphans there: this is the last sight of them
        for number in received.intersection(_STOP):
            os.kill(child, number)
        if time.monotonic() >= kill_at:
            _kill(child, family)
            kill_at += 1.0
    _kill(child, family)
    with suppress(ChildProcessError):  # until there is none
        while os.waitpid(-1, 0):
            _kill(child, set())
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _start(command: Sequence[str], *, keep_stdin: bool) -> int:
    """Fork and exec in a session of its own, with the signals blocked so that none is lost in between."""
    tether = os.getpid()
    prctl = _prctl()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
        return child
    try:
        os.setsid()
        for number in (*_STOP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if not keep_stdin:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
        if os.getppid() == tether:
            os.execvp(command[0], list(command))  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"{command[0]} cannot be run: {error.strerror}\n".encode())
    os._exit(127)


def _prctl() -> Any:
    if sys.platform != "linux":
        return lambda *_: None
    import ctypes

    return ctypes.CDLL(None).prctl


def _reap(child: int) -> int | None:
    """Collect what has ended; the command's wait status if it was among it."""
    found = None
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return found
            if pid == child:
                found = status
    return found


def _kill(group: int, family: set[int]) -> None:
    """Send SIGKILL to a process group, to every descendant and to `family`."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says "not permitted" of a group of zombies
        os.killpg(group, signal.SIGKILL)
    for pid in family | _descendants():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _descendants() -> set[int]:
    """Every process below this one."""
    parents = _parents_from_proc() if sys.platform == "linux" else _parents_from_ps()
    found, me = {os.getpid()}, os.getpid()
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {me}


def _parents_from_proc() -> dict[int, int]:
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - no pathlib here
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
            parents[int(name)] = int(stat.read().rpartition(b")")[2].split()[1])
    return parents


def _parents_from_ps() -> dict[int, int]:
    import subprocess

    listing = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True).stdout
    return {int(pid): int(parent) for pid, parent in (line.split() for line in listing.splitlines())}


def main(arguments: Sequence[str]) -> int:
    """The command line of the module's docstring; `--lifeline`: stdin is the pipe that only the parent holds."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, command = arguments[:split], arguments[split + 1 :]
    grace, lifeline = 10.0, None
    for option in options:
        if option == "--lifeline":
            lifeline = 0
        elif option.startswith("--grace="):
            grace = float(option.removeprefix("--grace="))
        else:
            command = []
    if not command:
        sys.stderr.write("usage: python -m service.tether [--grace=SECONDS] -- command args…\n")
        return 2
    return run(command, grace, lifeline)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
