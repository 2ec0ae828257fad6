"""A command under a tether ends with the process that started the tether."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service import tether
from tests.integration.processes import lives, until

ROOT = Path(__file__).parents[2]
# A command with a child in a process group of its own, as an rq worker and its horse; both deaf where asked to be.
FAMILY = """
import os, signal, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setpgid(0, 0)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(60)
"""
# A process that starts its last argument under a tether from a thread that ends, and lives on.
STARTER = """
import sys, threading, time
from service import tether
thread = threading.Thread(target=lambda: globals().update(kept=tether.spawn(sys.argv[2:], grace=float(sys.argv[1]))))
thread.start()
thread.join()
time.sleep(60)
"""


class Family:
    """The pids that FAMILY wrote: the command and its child."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.command = [sys.executable, "-c", FAMILY, str(file)]

    def pids(self) -> list[int]:
        until(lambda: self.file.exists() and self.file.read_text().count("\n") == 2)
        return [int(line) for line in self.file.read_text().splitlines()]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path / "pids")
    yield family
    for pid in map(int, family.file.read_text().splitlines()):
        if lives(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("by_hand", [False, True], ids=["spawned", "from the command line"])
def test_a_killed_parent_takes_the_command_and_its_child_along(family: Family, by_hand: bool) -> None:
    """Also when the thread that started the tether ended long ago, and for a tether that nobody gave a pipe."""
    command = [sys.executable, "-c", STARTER, "10", *family.command]
    if by_hand:
        started = textwrap.dedent("""
            import subprocess, sys, time
            subprocess.Popen([sys.executable, "-m", "service.tether", "--", *sys.argv[1:]])
            time.sleep(60)
        """)
        command = [sys.executable, "-c", started, *family.command]
    with subprocess.Popen(command, cwd=ROOT) as parent:
        pids = family.pids()
        assert all(map(lives, pids))
        parent.kill()
    until(lambda: not any(map(lives, pids)))


def test_a_command_deaf_to_sigterm_is_killed_after_the_grace(family: Family) -> None:
    """And so is its child, in a process group of its own."""
    with tether.spawn([*family.command, "deaf"], grace=0.2) as process:
        pids = family.pids()
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGKILL
    assert not any(map(lives, pids))


def test_what_a_command_leaves_behind_is_killed_when_it_has_ended(family: Family) -> None:
    """An rq worker that was killed does not leave its horse."""
    with tether.spawn(family.command) as process:
        pids = family.pids()
        main = next(pid for pid in pids if psutil.Process(pid).ppid() == process.pid)
        os.kill(main, signal.SIGKILL)
        assert process.wait(10) == 128 + signal.SIGKILL
    assert not any(map(lives, pids))


@pytest.mark.skipif(sys.platform != "linux", reason="nothing but Linux tells a command of its parent's death")
def test_a_killed_tether_ends_its_command(family: Family) -> None:
    with tether.spawn(family.command) as process:
        main = next(pid for pid in family.pids() if psutil.Process(pid).ppid() == process.pid)
        process.kill()
        until(lambda: not lives(main))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command_and_its_exit_code_comes_back(number: signal.Signals) -> None:
    script = f'trap "exit 7" {number.value}; echo ready; while :; do sleep 0.01; done'
    with tether.spawn(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(10) == 7


def test_a_command_that_cannot_be_run_says_so_with_127() -> None:
    with tether.spawn(["/no/such/command"], stderr=subprocess.PIPE) as process:
        assert process.wait(10) == 127
        assert process.stderr is not None
        assert process.stderr.read() == b"/no/such/command cannot be run: No such file or directory\n"


def test_the_command_gets_its_arguments_its_environment_and_an_empty_stdin() -> None:
    with tether.spawn(
        ["sh", "-c", 'cat; printf "%s|" "$0" "$@" "$COLOUR"', "a b", "", "--"],
        stdout=subprocess.PIPE,
        env={**os.environ, "COLOUR": "red"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"a b||--|red|"
        assert process.wait(10) == 0


def test_without_a_command_the_usage_is_told() -> None:
    done = subprocess.run([sys.executable, "-m", "service.tether", "--grace=1"], cwd=ROOT, capture_output=True)
    assert done.returncode == 2
    assert b"usage:" in done.stderr


def test_the_list_of_processes_reads_the_same_from_ps() -> None:
    """What macOS has to go by, checked against /proc where there is one."""
    parents = tether._parents_from_ps()
    assert parents[os.getpid()] == os.getppid()
