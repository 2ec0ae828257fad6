"""Redis away, silent or full: 503 and never an unlocked run; and it recovers by itself (CONTRACT section 2)."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from redis import Redis

from tests.integration.own_redis import NOTHING_STARTED, UNAVAILABLE, Own
from tests.integration.processes import until
from tests.integration.stack import API, Stack, free_port
from wordpress.demo_network import DemoNetwork, running

RUN, PROCESS = f"{API}/run", f"{API}/process-queue"


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, DemoNetwork]]:
    """A web process whose Redis never was there."""
    made = Stack(f"redis://127.0.0.1:{free_port()}", tmp_path_factory.mktemp("away"))
    try:
        with running(DemoNetwork.plain(3)) as network:
            made.use(network)
            made.web()
            yield made, network
    finally:
        made.close()


@pytest.mark.parametrize("path", [RUN, "/wp-json/dss-cron/v1/run"])
@pytest.mark.parametrize("query", [{}, {"defer": 1}])
def test_no_run_without_redis(away: tuple[Stack, DemoNetwork], path: str, query: dict[str, int]) -> None:
    """503 with Retry-After, also for a sync call; no site is called without the lock."""
    stack, network = away
    answer = stack.client.post(path, params=query)
    assert (answer.status_code, answer.json()) == (503, UNAVAILABLE)
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["cache-control"] == "no-store"
    in_text = stack.client.post(path, params={**query, "ga": 1})
    assert (in_text.status_code, in_text.text) == (503, f"::error::{NOTHING_STARTED}\n")
    assert network.sites.calls == 0


def test_no_deferred_run_without_redis(stack: Stack, network: DemoNetwork) -> None:
    """USE_REDIS_QUEUE=false needs Redis all the same: it keeps lock and cooldown."""
    stack.environ["REDIS_URL"] = f"redis://127.0.0.1:{free_port()}"
    stack.set(use_redis_queue="false")
    stack.web()
    assert (stack.trigger(defer=1).status_code, stack.trigger().json()) == (503, UNAVAILABLE)
    assert network.sites.calls == 0


def test_process_queue_without_redis(away: tuple[Stack, DemoNetwork]) -> None:
    """503 in the plugin's words."""
    answer = away[0].client.post(PROCESS)
    assert (answer.status_code, answer.json()) == (503, {"success": False, "message": "Redis is not available"})
    in_text = away[0].client.post(PROCESS, params={"ga": 1})
    assert (in_text.status_code, in_text.text) == (503, "::error::Redis is not available\n")


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"Authorization": "Bearer wrong"}, {}, 403),
        ({"Authorization": ""}, {}, 401),
        ({"Authorization": "Bearer wrong"}, {"defer": "maybe"}, 403),
        ({}, {"defer": "maybe"}, 400),
        ({}, {}, 503),
    ],
)
def test_who_calls_and_what_they_ask_is_looked_at_first(
    away: tuple[Stack, DemoNetwork], headers: dict[str, str], query: dict[str, str], status: int
) -> None:
    """First refusal wins: authentication, then parameters, then Redis."""
    assert away[0].client.post(RUN, headers=headers, params=query).status_code == status


@pytest.mark.parametrize(
    "path", [f"{API}/runs", f"{API}/runs/0123456789abcdef", f"{API}/runs/0123456789abcdef/events", "/metrics"]
)
def test_nothing_can_be_shown_without_redis(away: tuple[Stack, DemoNetwork], path: str) -> None:
    """503, not 404 or zeros: nobody knows whether there is such a run."""
    answer = away[0].client.get(path)
    assert (answer.status_code, answer.json()["error"]) == (503, "redis_unavailable")


def test_alive_but_not_ready_without_redis(away: tuple[Stack, DemoNetwork]) -> None:
    """/livez asks nothing; /readyz is 503 and names the check."""
    client = away[0].client
    assert client.get("/livez").status_code == 200
    answer = client.get("/readyz")
    assert (answer.status_code, list(answer.json()["checks"])) == (503, ["redis"])
    assert answer.json()["checks"]["redis"] == "unreachable"  # host and port are for the log
    assert client.get(API).status_code == 200


def test_it_recovers_without_a_restart(own: Own) -> None:
    """The same web process serves again when Redis is back, and the run that was queued before is still there."""
    stack = own.stack
    with running(DemoNetwork.plain(6)) as network:
        stack.use(network)
        web = stack.web()
        queued = stack.trigger(defer=1).json()["run_id"]
        own.server.stop()
        assert stack.trigger(defer=1).json() == UNAVAILABLE
        assert stack.client.get("/readyz").status_code == 503
        own.restart()
        assert stack.trigger(defer=1).json().items() >= {"coalesced": True, "run_id": queued}.items()
        assert stack.client.get("/readyz").json()["checks"] == {"redis": "ok"}
        assert stack.client.post(PROCESS).json()["count"] == 6
        assert network.stats()["ran_sites"] == 6
        assert web.poll() is None


def test_a_walk_outlives_a_restart_of_redis(own: Own) -> None:
    """While Redis is away nothing new is started; then the walk goes on, and its caller gets the result."""
    stack = own.stack
    with running(DemoNetwork.plain(60, latency_ms=100)) as network, ThreadPoolExecutor(1) as pool:
        stack.use(network)
        stack.set(origin_concurrency=4, batch_size=10)
        stack.web()
        waiting = pool.submit(stack.trigger)
        until(lambda: network.sites.calls > 8)
        own.server.stop()
        until(lambda: "Redis cannot be asked" in stack.log("web"))
        assert network.sites.calls < 60
        own.restart()
        answer = waiting.result()
        assert (answer.status_code, answer.json().get("count")) == (200, 60), answer.text
        assert (network.stats()["ran_sites"], network.sites.calls) == (60, 60)


def test_a_stream_outlives_a_restart_of_redis(own: Own) -> None:
    """Nothing comes while Redis is away; then what has changed."""
    stack = own.stack
    stack.web()
    where = stack.trigger(defer=1).headers["location"]
    with stack.client.stream("GET", f"{where}/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: run"
        own.server.stop()
        until(lambda: "Redis cannot be asked" in stack.log("web"))
        own.restart()
        assert httpx.post(f"{stack.client.base_url}{where}/cancel", headers=stack.client.headers).status_code == 200
        assert "event: end" in list(lines)


def test_a_silent_redis_is_away(own: Own) -> None:
    """A server that takes connections and never answers: /livez and /readyz answer in time, a trigger is 503."""
    stack = own.stack
    stack.web()
    stopped = own.server_process()
    stopped.suspend()
    try:
        with ThreadPoolExecutor(1) as pool:
            trigger = pool.submit(stack.trigger)
            ready = stack.client.get("/readyz", timeout=6)
            assert (ready.status_code, ready.json()["checks"]) == (503, {"redis": "no answer within 2 s"})
            assert stack.client.get("/livez", timeout=2).status_code == 200
            assert trigger.result().json() == UNAVAILABLE
    finally:
        stopped.resume()
    until(lambda: stack.client.get("/readyz").status_code == 200)


def fill(redis: Redis) -> None:
    """Let it have no memory left."""
    redis.config_set("maxmemory", "1")


def demote(redis: Redis) -> None:
    """Let it be the replica of nobody."""
    redis.replicaof("127.0.0.1", str(free_port()))


def orphan(redis: Redis) -> None:
    """Let it want a replica that it has not."""
    redis.config_set("min-replicas-to-write", "1")


def heal(redis: Redis) -> None:
    """Undo each of these."""
    redis.config_set("maxmemory", "0")
    redis.config_set("min-replicas-to-write", "0")
    redis.replicaof("NO", "ONE")


@pytest.mark.parametrize("broken", [fill, demote, orphan])
def test_a_redis_that_takes_no_writes_is_away(own: Own, broken: Callable[[Redis], None]) -> None:
    """A server that refuses writes starts no run, and is told apart from a bug of this project's."""
    stack = own.stack
    with running(DemoNetwork.plain(3)) as network:
        stack.use(network)
        stack.web()
        broken(stack.redis)
        assert (stack.trigger().json(), stack.trigger(defer=1).status_code) == (UNAVAILABLE, 503)
        assert network.sites.calls == 0
        heal(stack.redis)
        assert stack.trigger().json().get("count") == 3
