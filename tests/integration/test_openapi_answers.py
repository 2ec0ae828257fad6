"""What is described is what comes: real answers of each status, against /openapi.json (CONTRACT section 1)."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis

from jobs import keys
from tests.integration.stack import API, TOKEN, Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour

LEGACY = "/wp-json/dss-cron/v1"
Prepare = Callable[[Stack, DemoNetwork], object]


def nothing(web: Stack, sites: DemoNetwork) -> None:
    """As it is."""


def failing(web: Stack, sites: DemoNetwork) -> None:
    """A site will fail."""
    sites.sites.by_id[3].behaviour = Behaviour.ERROR500


def ran(web: Stack, sites: DemoNetwork) -> str:
    """A run has ended, one of its sites failed; the run's id."""
    failing(web, sites)
    return str(web.trigger().json()["run_id"])


def queued(web: Stack, sites: DemoNetwork) -> str:
    """A run waits; its id."""
    return str(web.trigger(defer=1).json()["run_id"])


def running(web: Stack, sites: DemoNetwork) -> str:
    """A run is under way, as far as anybody can tell; its id."""
    run_id = queued(web, sites)
    web.redis.hset(keys.run(run_id), mapping={"status": "running", "started_ms": 1})
    web.redis.zadd(f"{keys.run(run_id)}:walkers", {"somebody": 4e12})
    web.redis.expire(f"{keys.run(run_id)}:walkers", 60)
    web.redis.set(keys.LOCK, run_id, px=60_000)
    return run_id


def deactivated(web: Stack, sites: DemoNetwork) -> None:
    web.redis.set(keys.DEACTIVATED, 0)


def told_twice(web: Stack, sites: DemoNetwork) -> None:
    """As many wrong tokens as are borne."""
    for _ in range(10):
        web.client.get("/metrics", headers={"Authorization": "Bearer wrong"})


ASKED: list[tuple[str, str, Prepare, dict[str, Any], int]] = [
    ("GET", f"{API}/run", nothing, {}, 200),
    ("GET", f"{API}/run?ga=1", nothing, {}, 200),
    ("GET", f"{API}/run", failing, {}, 200),
    ("POST", f"{API}/run?defer=1", nothing, {}, 202),
    ("POST", f"{API}/run?defer=1&ga=yes", queued, {}, 202),
    ("POST", f"{API}/run", nothing, {"json": {"defer": True}}, 202),
    ("POST", f"{API}/run", nothing, {"content": "{", "headers": {"Content-Type": "application/json"}}, 400),
    ("POST", f"{API}/run", nothing, {"content": b"x" * 70_000}, 413),
    ("GET", f"{API}/run?defer=maybe", nothing, {}, 400),
    ("GET", f"{API}/run", running, {}, 409),
    ("GET", f"{API}/run?ga=1", running, {}, 409),
    ("GET", f"{API}/run", ran, {}, 429),
    ("GET", f"{API}/run", deactivated, {}, 503),
    ("GET", f"{LEGACY}/run", nothing, {}, 200),
    ("POST", f"{LEGACY}/run", ran, {}, 429),
    ("POST", f"{API}/process-queue", nothing, {}, 200),
    ("POST", f"{API}/process-queue", queued, {}, 200),
    ("POST", f"{API}/process-queue", running, {}, 409),
    ("GET", f"{API}/runs", ran, {}, 200),
    ("GET", f"{API}/runs?page=0", nothing, {}, 400),
    ("GET", f"{API}/runs", ran, {"headers": {"If-None-Match": "*"}}, 304),
    ("GET", f"{API}/runs/{{run_id}}", ran, {}, 200),
    ("GET", f"{API}/runs/{{run_id}}", queued, {}, 200),
    ("GET", f"{API}/runs/{'0' * 16}", nothing, {}, 404),
    ("GET", f"{API}/runs/{'0' * 16}?ga=1", nothing, {}, 404),
    ("GET", f"{API}/runs/{{run_id}}/sites?outcome=failed", ran, {}, 200),
    ("GET", f"{API}/runs/{{run_id}}/sites?outcome=dispatched", ran, {}, 400),
    ("GET", f"{API}/runs/{{run_id}}/events", ran, {}, 200),
    ("GET", f"{API}/runs/{'0' * 16}/events", nothing, {}, 404),
    ("POST", f"{API}/runs/{{run_id}}/cancel", queued, {}, 200),
    ("POST", f"{API}/runs/{{run_id}}/cancel?ga=1", queued, {}, 200),
    ("POST", f"{API}/runs/{{run_id}}/cancel", running, {}, 202),
    ("POST", f"{API}/runs/{{run_id}}/cancel", ran, {}, 409),
    ("POST", f"{API}/runs/{'0' * 16}/cancel", nothing, {}, 404),
    ("GET", f"{API}/sites?state=failing", ran, {}, 200),
    ("GET", f"{API}/sites", nothing, {}, 400),
    ("GET", f"{API}/sites/3", ran, {}, 200),
    ("GET", f"{API}/sites/2", ran, {}, 200),
    ("GET", f"{API}/sites/4711", nothing, {}, 404),
    ("GET", API, nothing, {}, 200),
    ("GET", "/metrics", nothing, {}, 200),
    ("GET", "/metrics", nothing, {"headers": {"Authorization": ""}}, 401),
    ("GET", "/metrics?ga=1", nothing, {"headers": {"Authorization": "Bearer wrong"}}, 403),
    ("GET", "/metrics", told_twice, {"headers": {"Authorization": "Bearer wrong"}}, 429),
    ("GET", "/livez", nothing, {}, 200),
    ("GET", "/readyz", nothing, {}, 200),
    ("GET", "/openapi.json", nothing, {}, 200),
]


@pytest.fixture(scope="module")
def described(module_stack: Stack) -> Any:
    """The description, fetched by anybody."""
    return schemathesis.openapi.from_dict(httpx.get(f"{module_stack.client.base_url}/openapi.json").json())


@pytest.mark.parametrize(("method", "path", "prepare", "call", "status"), ASKED)
def test_real_answers_are_as_described(
    web: Stack, sites: DemoNetwork, described: Any, method: str, path: str, prepare: Prepare, call: Any, status: int
) -> None:
    """Status, media type, headers and the whole body."""
    run_id = prepare(web, sites)
    answer = web.client.request(method, path.format(run_id=run_id), **call)
    assert answer.status_code == status
    template = path.partition("?")[0].replace("0" * 16, "{run_id}")
    template = template if "/sites/" not in template or "run_id" in template else f"{API}/sites/{{site_id}}"
    operation = described[template][method]
    assert str(status) in operation.definition.raw["responses"]
    operation.validate_response(answer)


def test_the_token_may_stand_in_the_query(web: Stack) -> None:
    """As the second of the two schemes says."""
    assert httpx.get(f"{web.client.base_url}{API}/runs", params={"token": TOKEN}).status_code == 200


def test_every_status_that_is_described_was_seen(described: Any) -> None:
    """But for those of a broken service or list of sites, and of a body that takes longer than 10 s."""
    operations = [one for path in described.raw_schema["paths"].values() for one in path.values()]
    statuses = {int(status) for operation in operations for status in operation["responses"]}
    assert statuses - {408, 500, 502} == {status for *_, status in ASKED}
