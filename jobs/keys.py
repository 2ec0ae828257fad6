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
| `deactivated` | string | ms until which runs are refused, 0 = for good | until then; none for good, see PERSISTENT |
| `metrics` | hash | figures of all processes, see jobs.metrics | none, see PERSISTENT |
| `follow_up` | zset | run id to verify, or `prune`; score = when (ms) | 7 days, renewed by each |
| `later` | zset | job id of another version, score = when it is queued again (ms) | 10 min, renewed by each |
| `clock` | hash | `time` (s) up to which clocks looked; the `last` tick; how many were `missed` | 30 days, renewed |
| `census` | string | `sites milliseconds` of the listing that last had sites pruned | 30 days |
| `sites:{bucket}` | hash | site id → its health, see jobs/lua/prelude.lua | none, see PERSISTENT |
| `failing` | zset | site id, score = Unix seconds since when its triggers fail | none, see PERSISTENT |
| `stuck` | zset | site id, score = Unix seconds since when its events stay due | none, see PERSISTENT |
| `due` | zset | site id, score = Unix seconds since when it is due | none, see PERSISTENT |
| `jobs` | list | jobs as JSON that the plugin queued; `check` takes them over | the plugin's: none |
| `jobs:malformed` | list | what was no job in it | 30 days after the last |
| `legacy` | hash | legacy name of a route, variable or filter → `uses last-use-ms` | 30 days, renewed by each use |
| `wrong_tokens:{address}` | string | wrong tokens of the last minute | 60 s |
| `update` | string | JSON: version and page of the newest release, or why it is not known | 12 h; an error 1 h |
| `run:{id}` | hash | the run record | RUN_RETENTION |
| `run:{id}:failed` | hash | site id → JSON of its failure, capped | RUN_RETENTION |
| `run:{id}:unverified` | list | JSON of [site id, URL, time of its due events, of a second trigger] | 1 day |
| `run:{id}:pages` | hash | page → its sites as JSON, until it is done | as `active`, gone at the end |
| `run:{id}:out` | hash | page → one byte a site: `.` open, a letter = its outcome | as `pages` |
| `run:{id}:leases` | zset | page, score = expiry (ms); 0 = given back | as `pages` |
| `run:{id}:owners` | hash | page → fence token | as `pages` |
| `run:{id}:walkers` | zset | walker name, score = expiry (ms) | as `pages` |
| `run:{id}:shares` | hash | walker name → its share of ORIGIN_CONCURRENCY | as `pages` |
| `run:{id}:seconds` | hash | walker name → JSON of its answers' durations that are counted | as `pages` |

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
METRICS = ROOT + "metrics"
DEACTIVATED = ROOT + "deactivated"
FOLLOW_UP = ROOT + "follow_up"
LATER = ROOT + "later"
CLOCK = ROOT + "clock"
CENSUS = ROOT + "census"
SITES = ROOT + "sites:"
FAILING = ROOT + "failing"
STUCK = ROOT + "stuck"
DUE = ROOT + "due"
PLUGIN_JOBS = ROOT + "jobs"
MALFORMED = ROOT + "jobs:malformed"
LEGACY_USES = ROOT + "legacy"
UPDATE = ROOT + "update"
RUN = ROOT + "run:"
LEGACY = "dss_cron:"  # of the plugin under its old name; only ever deleted

_health = "what is known of a site holds until it is triggered again; pruned when it leaves the network"
PERSISTENT = {
    SITES: _health,
    FAILING: _health,
    STUCK: _health,
    DUE: _health,
    CURSOR: "a capped walk goes on where it ended, however long ago; deleted when the cap is lifted",
    METRICS: "counters only rise; one that starts anew reads as a restart",
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


def unverified(run_id: str) -> str:
    """The sites of a run that are still to be verified, in batches."""
    return f"{RUN}{run_id}:unverified"


def site(site_id: str) -> str:
    """The hash that holds the health of a site, as jobs/lua/prelude.lua names it."""
    return SITES + ((site_id[:-2] or "0") if site_id.isdecimal() else site_id[:5])


def wrong_tokens(address: str) -> str:
    """The count of wrong tokens from an address."""
    return f"{ROOT}wrong_tokens:{address}"
