"""Waiting for a condition, and whether a process lives."""

import time
from collections.abc import Callable

import psutil


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until the condition holds; fails the test after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in {seconds} s"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether there is such a process and it has not ended."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
