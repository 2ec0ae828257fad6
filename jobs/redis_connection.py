"""Connections to Redis, bounded in number and time (CONTRACT section 6: REDIS_URL and the settings beside it)."""

import re
from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio
import structlog
from redis.maint_notifications import MaintNotificationsConfig

from jobs.settings import Settings

TIMEOUT = 3.0  # seconds for one answer; a walker that waits longer would miss what its sites answer
CONNECT_TIMEOUT = 2.0
POOL_TIMEOUT = 5.0  # seconds a caller waits for a free connection of the pool

_AWAY = (  # MasterDownError is a ClusterDownError; redis-py takes the code word off the texts of those with a class
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.NoPermissionError,
)
# At the start; or, as Redis 6.2 tells of a script and EXEC of a transaction, further on.
_AWAY_WORDS = re.compile(r"\b(MISCONF|BUSY|NOREPLICAS|UNKILLABLE|UNBLOCKED|OOM|READONLY)\b")


def unavailable(error: redis.exceptions.RedisError) -> bool:
    """Whether the error means that Redis cannot serve now (away, full, read-only, …), not that it was asked wrongly."""
    return isinstance(error, _AWAY) or bool(_AWAY_WORDS.search(str(error)))


def options(settings: Settings) -> dict[str, object]:
    """Keyword arguments for a client of either kind, as the settings ask."""
    chosen: dict[str, object] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "health_check_interval": 15,
        # else redis-py 8 hands out pooled connections that the server has closed, and a restart costs a 503 for each
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if settings.redis_url.get_secret_value().startswith("rediss://"):
        if settings.redis_tls_verify is False:
            structlog.get_logger("all_sites_cron.redis").warning(
                "the certificate of the Redis server is not verified", setting="ALL_SITES_CRON_REDIS_TLS_VERIFY=false"
            )
            chosen |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        elif isinstance(settings.redis_tls_verify, str):
            chosen["ssl_ca_certs"] = settings.redis_tls_verify
    return chosen


def _pool(settings: Settings, retry: Callable[..., object]) -> dict[str, Any]:
    url, most = settings.redis_url.get_secret_value(), settings.redis_max_connections
    # a server that was demoted keeps its connections; a new one may lead to the server that took its place
    again = retry(redis.backoff.NoBackoff(), 1, (redis.exceptions.ReadOnlyError,))
    return {"url": url, "max_connections": most, "timeout": POOL_TIMEOUT, "retry": again, **options(settings)}


def connect(settings: Settings) -> redis.Redis:
    """A synchronous client; nothing is sent yet."""
    return redis.Redis(connection_pool=redis.BlockingConnectionPool.from_url(**_pool(settings, redis.retry.Retry)))


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """An asynchronous client for the event loop of the web process; nothing is sent yet."""
    pool = _pool(settings, redis.asyncio.retry.Retry)
    return redis.asyncio.Redis(connection_pool=redis.asyncio.BlockingConnectionPool.from_url(**pool))
