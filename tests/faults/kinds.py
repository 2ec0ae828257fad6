"""The faults: what is done to a deployment in the middle of a run, and how many of its walkers may forget something.

A kind is a function that does the fault to a deployment; it ends when the fault is over and whatever it ended was
started again.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from jobs.rq_jobs import HEARTBEAT_GRACE
from jobs.walker import STEP_SECONDS
from tests.faults.deployment import CONCURRENCY, LATENCY, Deployment, family

LOCK_SECONDS = 15  # the default of LOCK_TIMEOUT
FSYNC_SECONDS = 1  # appendfsync everysec


class Fault(NamedTuple):
    """What was done. `what`: for a person. `walkers`: how many lost what they had not saved. `unsaved`: s, at most."""

    what: str
    walkers: int = 0
    unsaved: float = STEP_SECONDS

    @property
    def most_repeats(self) -> int:
        """Triggers beyond a site's first that the fault may cost.

        A slot has one trigger in flight, which is sent again. Since the last checkpoint it has seen off one for each
        latency, and one that was about to end when that checkpoint was written.
        """
        return int(self.walkers * CONCURRENCY * (2 + self.unsaved / (sum(LATENCY) / 2)))


def horse_killed(deployment: Deployment, rng: random.Random) -> Fault:
    """SIGKILL of a worker's horse: its worker says so, and the next walker takes its batches."""
    os.kill(deployment.horse(), signal.SIGKILL)
    return Fault("SIGKILL of a horse", 1)


def worker_killed(deployment: Deployment, rng: random.Random) -> Fault:
    """SIGKILL of a worker and its horse: nobody says so, and its batches come back when their lease ends."""
    deployment.kill_worker()
    return Fault("SIGKILL of a worker and its horse", 1)


def web_killed(deployment: Deployment, rng: random.Random) -> Fault:
    """SIGKILL of the web process, which walks a run itself."""
    deployment.kill_web()
    return Fault("SIGKILL of the web process", 1)


def server_killed(deployment: Deployment, rng: random.Random) -> Fault:
    """SIGKILL of the server, which comes back a while later."""
    deployment.kill_server()
    away = rng.uniform(0, 3)
    time.sleep(away)
    deployment.restart()
    return Fault(f"SIGKILL of the server, away {away:.1f} s", len(deployment.workers), FSYNC_SECONDS + STEP_SECONDS)


def power_cut(deployment: Deployment, rng: random.Random) -> Fault:
    """The server's machine loses what was not yet synced to its disk, and comes back a while later."""
    unsynced, away = rng.uniform(0, FSYNC_SECONDS), rng.uniform(0, 3)
    deployment.cut_power(unsynced)
    time.sleep(away)
    deployment.restart()
    what = f"power cut of the server, {unsynced:.1f} s lost, away {away:.1f} s"
    return Fault(what, len(deployment.workers), FSYNC_SECONDS + STEP_SECONDS)


def server_restarted(deployment: Deployment, rng: random.Random) -> Fault:
    """SIGTERM to the server, which writes down all it has; the walkers wait."""
    away = rng.uniform(0, 3)
    deployment.server.stop()
    time.sleep(away)
    deployment.restart()
    return Fault(f"restart of the server, away {away:.1f} s")


def all_told_to_end(deployment: Deployment, rng: random.Random) -> Fault:
    """SIGTERM to all processes at once, horses included, and a new start: Heroku each day, and at each release."""
    deployment.end_all()
    return Fault("SIGTERM to all")


def cut(deployment: Deployment, rng: random.Random, longest: float = 20) -> Fault:
    """No network between a worker and the server: silent, or with every connection ended at once."""
    seconds, silent = rng.uniform(1, longest), rng.random() < 0.5
    deployment.cut(silent=silent)
    time.sleep(seconds)
    deployment.mend()
    given_up = seconds > HEARTBEAT_GRACE  # by then its job may be given to another walker
    return Fault(f"cut of {seconds:.1f} s, {'silent' if silent else 'connections ended'}", int(given_up))


def short_cut(deployment: Deployment, rng: random.Random) -> Fault:
    """The same, for at most 5 s."""
    return cut(deployment, rng, 5)


def asleep(deployment: Deployment, rng: random.Random) -> Fault:
    """SIGSTOP of a worker and its horse until their leases have ended, then SIGCONT."""
    seconds = LOCK_SECONDS + rng.uniform(0.5, 3)
    deployment.horse()
    pids = family(deployment.workers[0])
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    return Fault(f"SIGSTOP of a worker for {seconds:.1f} s", 1)


Kind = Callable[[Deployment, random.Random], Fault]
KINDS: tuple[Kind, ...] = (
    horse_killed,
    worker_killed,
    web_killed,
    server_killed,
    power_cut,
    server_restarted,
    all_told_to_end,
    cut,
    asleep,
)
NEED_A_HORSE = {horse_killed, worker_killed, asleep}
