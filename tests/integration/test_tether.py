"""A command under a tether ends with the process that started the tether."""

import os
import signal
import subprocess
import sys
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


def test_a_killed_starter_takes_the_command_and_its_child_along(family: Family) -> None:
    """Also when the thread that started the tether ended long ago."""
    with subprocess.Popen([sys.executable, "-c", STARTER, "10", *family.command], cwd=ROOT) as starter:
        pids = family.pids()
        assert all(map(lives, pids))
        starter.kill()
    until(lambda: not any(map(lives, pids)))


def test_a_killed_starter_of_a_deaf_command_takes_it_along_after_the_grace(family: Family) -> None:
    command = [sys.executable, "-c", STARTER, "0.2", *family.command, "deaf"]
    with subprocess.Popen(command, cwd=ROOT) as starter:
        pids = family.pids()
        starter.kill()
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


def test_ending_a_command_whose_tether_was_killed_ends_it_and_its_child(family: Family) -> None:
    with tether.spawn(family.command) as process:
        pids = family.pids()
        process.kill()
        process.wait(10)
        assert all(map(lives, pids))
        tether.end(process)
    assert not any(map(lives, pids))


def test_several_end_side_by_side_and_a_second_signal_is_not_passed_on(tmp_path: Path) -> None:
    """A second SIGTERM would make an rq worker drop its job."""
    script = 'trap "echo got" TERM; echo ready; while [ ! -e "$0/end" ]; do sleep 0.01; done'
    with (
        tether.spawn(["sh", "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as deaf,
        tether.spawn(["sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE) as other,
    ):
        assert deaf.stdout is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        assert deaf.stdout.readline() == b"ready\n"
        deaf.terminate()
        assert deaf.stdout.readline() == b"got\n"
        deaf.terminate()
        other.terminate()
        assert other.wait(10) == 128 + signal.SIGTERM
        (tmp_path / "end").touch()
        tether.end(deaf)
        tether.end(other)
        assert deaf.stdout.read() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command_and_its_exit_code_comes_back(number: signal.Signals) -> None:
    script = f'trap "exit 7" {number.value}; echo ready; while :; do sleep 0.01; done'
    with tether.spawn(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(10) == 7


def test_a_command_that_cannot_be_run_says_so() -> None:
    with tether.spawn(["/no/such/command"], stderr=subprocess.PIPE) as process:
        assert process.wait(10) == 1
        assert process.stderr is not None
        assert b"No such file or directory: '/no/such/command'" in process.stderr.read()


def test_the_command_gets_its_arguments_its_environment_and_an_empty_stdin() -> None:
    with tether.spawn(
        ["sh", "-c", 'cat; printf "%s|" "$0" "$@" "$COLOUR"', "a b", "", "--"],
        stdout=subprocess.PIPE,
        env={**os.environ, "COLOUR": "red"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"a b||--|red|"
        assert process.wait(10) == 0


def test_the_list_of_processes_reads_the_same_from_ps() -> None:
    """What macOS has to go by, checked against /proc where there is one."""
    mine = {os.getpid(), os.getppid()}
    assert mine <= set(tether._pids(from_ps=True))
    assert mine <= set(tether._pids())
