"""Every Redis key this project writes, in one place (CONTRACT section 4).

| Key | Type | Content | TTL |
| --- | --- | --- | --- |
| `active` | string | id of the run that is queued or running | RUN_RETENTION, renewed by steps and sweeps |
| `lock` | string | run id; the run lock | LOCK_TIMEOUT (PX), renewed by the walkers |
| `cooldown` | string | `milliseconds run-id` of the last run's start | 7 days, the most the setting can be |
| `cursor` | string | where the next capped run goes on | none, see PERSISTENT |
| `runs` | zset | run id, score = time queued (ms) | RUN_RETENTION, renewed by each run |
| `workers` | zset | RQ worker name, score = last heard (ms) | 1 day, renewed by each heartbeat |
| `process_queue_seen` | string | set by each call of process-queue | 10 min |
| `deactivated` | string | ms until which runs are refused, 0 = for good | none, see PERSISTENT |
| `wrong_tokens:{address}` | string | wrong tokens of the last minute | 60 s |
| `run:{id}` | hash | the run record | RUN_RETENTION |
| `run:{id}:failed` | hash | site id → JSON of its failure, capped | RUN_RETENTION |
| `run:{id}:pages` | hash | page → its sites as JSON, until it is done | as `active`, gone at the end |
| `run:{id}:out` | hash | page → one byte a site: `.` open, a letter = its outcome | as `pages` |
| `run:{id}:leases` | zset | page, score = expiry (ms); 0 = given back | as `pages` |
| `run:{id}:owners` | hash | page → fence token | as `pages` |
| `run:{id}:walkers` | zset | walker name, score = expiry (ms) | as `pages` |
| `run:{id}:shares` | hash | walker name → its share of ORIGIN_CONCURRENCY | as `pages` |

RQ's own keys (`rq:job:*`, `rq:queue:*`, …) are written as RQ writes them.
"""

ROOT = "all_sites_cron:"
ACTIVE = ROOT + "active"
LOCK = ROOT + "lock"
COOLDOWN = ROOT + "cooldown"
CURSOR = ROOT + "cursor"
RUNS = ROOT + "runs"
WORKERS = ROOT + "workers"
PROCESS_QUEUE_SEEN = ROOT + "process_queue_seen"
DEACTIVATED = ROOT + "deactivated"
RUN = ROOT + "run:"

PERSISTENT = {
    CURSOR: "a capped walk goes on where it ended, however long ago; deleted when the cap is lifted",
    DEACTIVATED: "an operator's decision holds until it is taken back",
}

MOST_RUNS = 1000
MOST_FAILURES = 1000


def run(run_id: str) -> str:
    """The run record of a run."""
    return RUN + run_id


def failures(run_id: str) -> str:
    """The failing sites of a run."""
    return f"{RUN}{run_id}:failed"


def walkers(run_id: str) -> str:
    """The walkers of a run."""
    return f"{RUN}{run_id}:walkers"


def wrong_tokens(address: str) -> str:
    """The count of wrong tokens from an address."""
    return f"{ROOT}wrong_tokens:{address}"
