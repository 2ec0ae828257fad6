"""The Lua scripts: every decision about a run is one of them, atomic and by the Redis clock (DESIGN.md).

Their text is under `jobs/lua`; key names and constants are written before it from `jobs.keys` and the settings.
"""

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

from redis import Redis

from jobs import keys, rq_names
from jobs.outcomes import ERRORS, Outcome
from jobs.settings import Settings

PICKUP_MS = 5_000  # how long a job may be between the queue and its walker's first word
WORKER_SECONDS = 90  # a worker not heard of for so long does not count
PROCESS_QUEUE_SECONDS = 600
JITTER_MS = 1_000  # a call less than this before the cooldown's end is admitted (crontab jitter)
BACKLOG = 20  # listed and unclaimed batches at which listing pauses
MOST_CRASHES = 3
RESULT_TTL, FAILURE_TTL, JOB_RETRIES = 60, 3_600, 3


def text(name: str, settings: Settings) -> str:
    """The whole text of a script."""
    folder = resources.files("jobs") / "lua"
    return "\n".join([_constants(settings), (folder / "prelude.lua").read_text(), (folder / f"{name}.lua").read_text()])


def _constants(settings: Settings) -> str:
    names = {
        "active": keys.ACTIVE,
        "lock": keys.LOCK,
        "cooldown": keys.COOLDOWN,
        "cursor": keys.CURSOR,
        "runs": keys.RUNS,
        "workers": keys.WORKERS,
        "process_queue_seen": keys.PROCESS_QUEUE_SEEN,
        "deactivated": keys.DEACTIVATED,
        "run": keys.RUN,
        "job": rq_names.JOB,
        "queue": rq_names.queue(settings.redis_queue_key),
        "queues": rq_names.QUEUES,
    }
    values: dict[str, object] = {
        "queue": settings.redis_queue_key,
        "walk": rq_names.WALK,
        "use_queue": int(settings.use_redis_queue),
        "retention": settings.run_retention,
        "lock_ms": int(settings.lock_timeout * 1000),
        "pickup_ms": PICKUP_MS,
        "worker_ms": WORKER_SECONDS * 1000,
        "process_queue_s": PROCESS_QUEUE_SECONDS,
        "jitter_ms": JITTER_MS,
        "backlog": BACKLOG,
        "most_runs": keys.MOST_RUNS,
        "most_failures": keys.MOST_FAILURES,
        "most_crashes": MOST_CRASHES,
        "result_ttl": RESULT_TTL,
        "failure_ttl": FAILURE_TTL,
        "job_retries": JOB_RETRIES,
    }
    letters = {"letters": [o.value for o in Outcome], "error_letters": sorted(o.value for o in ERRORS)}
    lua = [f"local K = {{ {', '.join(f'{k} = {json.dumps(v)}' for k, v in names.items())} }}"]
    lua.append(f"local C = {{ {', '.join(f'{k} = {json.dumps(v)}' for k, v in values.items())} }}")
    lua.extend(f"C.{k} = {{ {', '.join(json.dumps(letter) for letter in v)} }}" for k, v in letters.items())
    return "\n".join(lua)


class Claimed(NamedTuple):
    """A batch given to a walker. `sites`: [id, URL] pairs; `out`: one byte a site, `.` = still to do."""

    page: int
    token: str
    sites: list[list[str]]
    out: str


class StepReply(NamedTuple):
    """What a step came to.

    `status`: the run's, or `gone`, or `expelled` (this walker was replaced, or another run holds the lock).
    `lost`: batches that belong to another walker now. `lister`: a fresh lister lease (token, cursor, most
    sites to list or None); `listing`: whether this walker holds it. `backlog`: batches nobody claimed yet.
    `share`: how many requests this walker may have in flight to one origin server. `retries`: how many of
    the retries asked for are granted. `expiry`: milliseconds until the first lease runs out, None = no lease.
    `sites`: listed so far. `finished`: this very step ended the run.
    """

    status: str
    lost: Sequence[int] = ()
    claimed: Sequence[Claimed] = ()
    lister: tuple[str, str, int | None] | None = None
    listing: bool = False
    backlog: int = 0
    share: int = 0
    retries: int = 0
    expiry: int | None = None
    sites: int = 0
    finished: bool = False


class Scripts:
    """The scripts bound to one synchronous connection pool."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._start, self._step, self._sweep, self._admit = (
            redis.register_script(text(name, settings)) for name in ("start", "step", "sweep", "admit")
        )

    def admit(self, arguments: str) -> list[bytes]:
        """Run the admission script; see jobs.admission for both sides of it."""
        return list(self._admit(args=[arguments]))

    def start(self, **arguments: object) -> str:
        """A walker reports for work: `walk`, `busy` (another run holds the lock), `ended` or `gone`."""
        return str(self._start(args=[json.dumps(arguments)])[0].decode())

    def step(self, **arguments: object) -> StepReply:
        """Checkpoint and claim."""
        raw: dict[str, Any] = json.loads(self._step(args=[json.dumps(arguments)]))
        claimed = [Claimed(c["p"], c["t"], json.loads(c["s"]), c["o"]) for c in raw.get("claimed") or ()]
        lister = (raw["lister"], raw["cursor"], raw.get("left")) if "lister" in raw else None
        return StepReply(
            status=raw["status"],
            lost=list(raw.get("lost") or ()),
            claimed=claimed,
            lister=lister,
            listing=raw.get("listing", False),
            backlog=raw.get("backlog", 0),
            share=raw.get("share", 0),
            retries=raw.get("retries", 0),
            expiry=raw.get("expiry"),
            sites=raw.get("sites", 0),
            finished=raw.get("finished", False),
        )

    def sweep(self, **arguments: object) -> tuple[str, str]:
        """Look after the active run: (`none` | `fine` | `enqueued` | `orphan`, run id)."""
        what, run_id = self._sweep(args=[json.dumps(arguments)])
        return what.decode(), run_id.decode()
