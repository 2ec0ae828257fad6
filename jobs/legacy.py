"""The plugin's old names: how often they are still used (the scripts count, jobs/lua/prelude.lua), and the new ones."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import cast

from redis import Redis

from jobs import keys

DAYS = 30
RENAMED = (
    ("dss-cron", "all-sites-cron"),
    ("dss_cron", "all_sites_cron"),
    ("DSS_CRON", "ALL_SITES_CRON"),
    ("ALL_SITES_CRON_REDIS_URL", "REDIS_URL"),
    ("REDIS_MAX_RETRIES", "MAX_RETRIES"),
)


def seen(redis: Redis) -> Iterator[tuple[str, str]]:
    """(what was used and how often, what to do) of each old name that was used within 30 days."""
    for name, value in sorted(cast(Mapping[bytes, bytes], redis.hgetall(keys.LEGACY_USES)).items()):
        old, (uses, last_ms) = name.decode(), map(int, value.split())
        if last_ms / 1000 < time.time() - DAYS * 86400:
            continue
        new = old
        for before, after in RENAMED:
            new = new.replace(before, after)
        if old.startswith("/"):
            said, remedy = f"route {old} was called {uses} times", f"Call {new}."
        else:
            kind = "variable" if old.isupper() else "filter"
            said, remedy = f"{kind} {old} was used by {uses} starts of a web process or worker", f"Use {new}."
        when = f"{datetime.fromtimestamp(last_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
        yield f"the legacy {said}, the last on {when}", f"{remedy} Told until {DAYS} days after the last use."
