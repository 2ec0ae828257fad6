"""Admission: what one trigger does, decided by one Redis round trip (CONTRACT section 2)."""

import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from jobs.errors import AlreadyRunning, CoolingDown, Deactivated

How = Literal["defer", "here", "process-queue"]
What = Literal["queued", "joined", "started"]


@dataclass(frozen=True)
class Trigger:
    """One press of the button.

    `how`: `defer` leaves the walk to others; `here` and `process-queue` walk in this process.
    `mode`, `by`: what the run record says of it. `cooldown`: seconds, 0 or less = none. `legacy`: old names it used.
    `clock`: of a clock's alone: Unix seconds from which and up to which it looked, what is to be kept of the last tick
    in between, and how many others are in between.
    """

    how: How
    mode: str
    by: str
    cooldown: int
    legacy: tuple[str, ...] = ()
    clock: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class Admitted:
    """`what`: `queued`, `joined` (a run was waiting already) or `started` (this process is to walk it now).

    `walker`: the name to walk under. `workers`: RQ workers heard of lately, process-queue callers included.
    """

    what: What
    run_id: str
    walker: str
    workers: int | None = None


class NothingQueued(Exception):
    """process-queue found no run that waits."""


RUN_ID = "[0-9a-f]{16}"  # the form of what new_id makes


def new_id() -> str:
    """A fresh run, job or walker id: 16 hex digits."""
    return secrets.token_hex(8)


def rq_now() -> str:
    """The time as RQ writes it into a job."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def fresh_job() -> dict[str, str]:
    """A job id and its time, should a script have to leave a walker job in the queue."""
    return {"job": "walk-" + new_id(), "iso": rq_now()}


def request(trigger: Trigger) -> tuple[str, str]:
    """The admission script's argument, and the walker's name in it."""
    walker = "here-" + new_id()
    arguments = asdict(trigger) | {"id": new_id(), "cooldown_ms": trigger.cooldown * 1000, "walker": walker}
    return json.dumps(arguments | fresh_job()), walker


def deactivated(until: int) -> str:
    """What a caller and an operator are told. `until`: as the key has it, ms or 0 for good."""
    when = f" until {datetime.fromtimestamp(until / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC" if until else ""
    return f"All Sites Cron is deactivated{when}; `all-sites-cron activate` lifts it."


def decide(reply: Sequence[bytes | int], trigger: Trigger, walker: str) -> Admitted:
    """The script's reply as an admission, or as the refusal it is.

    Raises Deactivated, AlreadyRunning, CoolingDown, NothingQueued.
    """
    words = [part.decode() if isinstance(part, bytes) else str(part) for part in reply]
    what, run_id = words[0], words[1]
    if what == "deactivated":
        raise Deactivated(deactivated(int(words[2])))
    if what == "running":
        raise AlreadyRunning(run_id, max(1, math.ceil(int(words[2]) / 1000)), orphaned=words[3] == "1")
    if what == "cooling":
        left, last = int(words[2]), int(words[3])
        raise CoolingDown(math.ceil(left / 1000), trigger.cooldown, last // 1000, run_id)
    if what == "empty":
        raise NothingQueued
    workers = int(words[2]) if what != "started" else None
    return Admitted(cast(What, what), run_id, walker, workers)
