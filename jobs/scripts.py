"""The Lua scripts: every decision about a run is one of them, atomic and by the Redis clock (DESIGN.md).

Their text is under `jobs/lua`; key names and constants are written before it from `jobs.keys` and the settings.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from redis import Redis

from jobs import keys, rq_names
from jobs.metrics import RUN_BUCKETS
from jobs.outcomes import ERRORS, Outcome
from jobs.settings import Settings

WORKER_SECONDS = 90  # a worker not heard of for so long does not count
FOLLOW_UP_SECONDS = 60  # until a follow-up that nobody went on with is taken up again
SETTLE_SECONDS = 2  # what WordPress has to start the events of a trigger
BACKLOG = 20  # listed and unclaimed batches at which listing pauses


def workers(redis: Redis) -> int:
    """RQ workers heard of lately, by the Redis clock."""
    seconds, _ = redis.time()
    return int(redis.zcount(keys.WORKERS, (seconds - WORKER_SECONDS) * 1000, "+inf"))


def text(name: str, settings: Settings) -> str:
    """The whole text of a script."""
    names = {k.lower(): v for k, v in vars(keys).items() if k.isupper() and isinstance(v, str)}
    names |= {"job": rq_names.JOB, "queue": rq_names.queue(settings.redis_queue_key), "queues": rq_names.QUEUES}
    constants = {
        "queue": settings.redis_queue_key,
        "walk": rq_names.WALK,
        "follow_up": rq_names.FOLLOW_UP,
        "follow_up_ms": FOLLOW_UP_SECONDS * 1000,
        "settle_ms": SETTLE_SECONDS * 1000,
        "use_queue": int(settings.use_redis_queue),
        "retention": settings.run_retention,
        "lock_ms": int(settings.lock_timeout * 1000),
        "worker_ms": WORKER_SECONDS * 1000,
        "backlog": BACKLOG,
        "most_runs": keys.MOST_RUNS,
        "most_failures": keys.MOST_FAILURES,
        "letters": "".join(Outcome),
        "run_buckets": " ".join(RUN_BUCKETS),
        "error_letters": "".join(sorted(ERRORS)),
    }
    folder = resources.files("jobs") / "lua"
    parts = ["prelude", *(["health"] if name in ("step", "verify", "start", "sweep", "cancel") else []), name]
    files = [(folder / f"{part}.lua").read_text() for part in parts]
    return "\n".join([_table("K", names), _table("C", constants), *files])


def _table(name: str, values: Mapping[str, object]) -> str:
    return f"local {name} = {{ {', '.join(f'{k} = {json.dumps(v)}' for k, v in values.items())} }}"


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
    sites to list or None, where a capped run began, whether nothing to trigger is listed yet);
    `listing`: whether this walker holds it. `backlog`: batches nobody claimed yet.
    `share`: how many requests this walker may have in flight to one origin server. `retries`: how many of
    the retries asked for are granted. `sites`: listed so far. `finished`: this very step ended the run;
    `first`: it was the run's first. `failures`: sites whose failure the run had before it. `cancelled`: nothing
    more is to be started.
    """

    status: str
    lost: Sequence[int] = ()
    claimed: Sequence[Claimed] = ()
    lister: tuple[str, str, int | None, str, bool] | None = None
    listing: bool = False
    backlog: int = 0
    share: int = 0
    retries: int = 0
    sites: int = 0
    finished: bool = False
    failures: int = 0
    first: bool = False
    cancelled: bool = False


class Scripts:
    """The scripts bound to one synchronous connection pool."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._start, self._step, self._sweep, self._admit, self._verify = (
            redis.register_script(text(name, settings)) for name in ("start", "step", "sweep", "admit", "verify")
        )

    def admit(self, arguments: str) -> list[bytes]:
        """Run the admission script; see jobs.admission for both sides of it."""
        return list(self._admit(args=[arguments]))

    def start(self, **arguments: object) -> str:
        """A walker reports for work: `walk`, `busy` (another run holds the lock), `ended` or `gone`."""
        return str(self._start(args=[json.dumps(arguments)])[0].decode())

    def step(self, **arguments: object) -> StepReply:
        """Checkpoint and claim."""
        reply: dict[str, Any] = json.loads(self._step(args=[json.dumps(arguments)]))
        reply["lost"] = list(reply.get("lost", ()))  # an empty table of Lua's is {} in JSON
        claims = reply.get("claimed", ())
        reply["claimed"] = [
            Claimed(page, token, [site[:2] for site in json.loads(sites)], out) for page, token, sites, out in claims
        ]
        if "lister" in reply:
            reply["lister"] = tuple(reply["lister"])
        return StepReply(**reply)

    def verify(self, **arguments: object) -> bool:
        """Keep what a look at unverified sites came to; False when another process does it, or the run is forgotten."""
        return bool(self._verify(args=[json.dumps(arguments)]))

    def sweep(self, **arguments: object) -> tuple[str, str, str]:
        """Look after the active run: (`none` | `fine` | `enqueued` | `orphan`, run id, what to follow up here)."""
        what, run_id, follow_up = self._sweep(args=[json.dumps(arguments)])
        return what.decode(), run_id.decode(), follow_up.decode()
