"""Who is let in: one run for any number of callers, one round trip to decide, and a run that is never lost."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis

from jobs import keys
from tests.integration.processes import until
from tests.integration.stack import API, Stack
from wordpress.demo_network import DemoNetwork

QUEUE = "rq:queue:all-sites-cron"


def hundred(web: Stack, **query: Any) -> list[httpx.Response]:
    """The answers of a hundred callers, each with a connection of its own, at once."""

    options: dict[str, Any] = {"base_url": web.client.base_url, "headers": web.client.headers, "timeout": 60}

    async def call(ready: asyncio.Barrier) -> httpx.Response:
        async with httpx.AsyncClient(**options, verify=False) as client:  # loading the CA store takes 20 ms each
            await client.get("/livez")
            await ready.wait()
            return await client.post(f"{API}/run", params=query)

    async def all_of_them() -> list[httpx.Response]:
        ready = asyncio.Barrier(100)
        return await asyncio.gather(*(call(ready) for _ in range(100)))

    return asyncio.run(all_of_them())


def text(value: object) -> str:
    """What Redis answered."""
    assert isinstance(value, bytes), value
    return value.decode()


def slow_down(sites: DemoNetwork, milliseconds: int) -> None:
    """Every site takes so long to answer."""
    for site in sites.sites.all:
        site.latency_ms = milliseconds


def test_a_hundred_deferred_callers_make_one_run(web: Stack, sites: DemoNetwork) -> None:
    """One is admitted, ninety-nine join it: all get 202 with its id; one job waits, every site is called once."""
    answers = hundred(web, defer=1)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert Counter(answer.json().get("coalesced") for answer in answers) == {True: 99, None: 1}
    assert web.redis.llen(QUEUE) == 1
    web.client.post(f"{API}/process-queue")
    assert web.redis.zcard(keys.RUNS) == 1
    assert (sites.stats()["calls"], sites.stats()["ran_sites"]) == (6, 6)


def test_a_hundred_waiting_callers_make_one_run(web: Stack, sites: DemoNetwork) -> None:
    """One walks and gets the result, ninety-nine are told at once that its run is running."""
    slow_down(sites, 1500)
    answers = hundred(web)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 99}
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert web.redis.zcard(keys.RUNS) == 1
    assert sites.stats()["calls"] == 6


def test_a_hundred_callers_after_a_run_cool_down(web: Stack, sites: DemoNetwork) -> None:
    """Within the cooldown nobody is let in."""
    run_id = web.trigger().json()["run_id"]
    answers = hundred(web, defer=1)
    assert {(answer.status_code, answer.json()["run_id"]) for answer in answers} == {(429, run_id)}
    assert sites.stats()["calls"] == 6


def commands_of(web: Stack, call: Callable[[], object]) -> list[str]:
    """The commands that other clients send while `call` runs; those that scripts run inside the server left out."""
    heard: list[dict[str, Any]] = []
    with Redis.from_url(web.redis_url) as watching, watching.monitor() as monitor:
        call()
        web.redis.echo("that is all")
        for command in monitor.listen():
            if "that is all" in command["command"]:
                break
            heard.append(command)
    return [command["command"].split()[0] for command in heard if command["client_type"] != "lua"]


@pytest.mark.parametrize("case", ["admitted", "joined", "running", "cooling", "deactivated", "legacy"])
def test_one_round_trip_decides(web: Stack, sites: DemoNetwork, case: str) -> None:
    """Whatever the answer, a trigger sends Redis one EVALSHA and nothing else."""
    expected = {"admitted": 202, "joined": 202, "running": 409, "cooling": 429, "deactivated": 503}.get(case, 202)
    if case == "joined":
        web.trigger(defer=1)
    if case == "running":
        run_id = web.trigger(defer=1).json()["run_id"]
        web.redis.hset(keys.run(run_id), "status", "running")
    if case == "cooling":
        web.trigger()
    if case == "deactivated":
        web.redis.set(keys.DEACTIVATED, 0)
    web.client.get("/readyz")
    web.client.post(f"{API}/run", params={"defer": "maybe"})
    path = (API.replace("all-sites", "dss") if case == "legacy" else API) + "/run"
    seen: list[str] = []

    def quiet() -> bool:
        """Whether the process's own sweep did not come between; else once more."""
        status: list[int] = []
        seen[:] = commands_of(web, lambda: status.append(web.client.post(path, params={"defer": 1}).status_code))
        if case in ("admitted", "legacy") and seen != ["EVALSHA"]:
            web.redis.flushall()
        assert status == [expected]
        return seen == ["EVALSHA"]

    assert quiet() or quiet(), seen


def test_the_deciding_script_is_loaded_once(web: Stack, sites: DemoNetwork) -> None:
    """A server that forgot the scripts is told them again within the same answer."""
    web.redis.script_flush()
    assert web.trigger().status_code == 200
    assert web.trigger().status_code == 429


def test_a_sync_call_starts_the_queued_run_here(web: Stack, sites: DemoNetwork) -> None:
    """While one is queued, a sync call walks that one and answers with its result, though it is within the cooldown."""
    queued = web.trigger(defer=1).json()["run_id"]
    answer = web.trigger()
    assert (answer.status_code, answer.json()["run_id"], answer.json()["count"]) == (200, queued, 6)
    assert web.redis.zcard(keys.RUNS) == 1
    assert web.redis.llen(QUEUE) == 0, "its job is not needed any more"
    assert sites.stats()["calls"] == 6


def test_the_job_of_a_run_started_elsewhere_finds_nothing_left(stack: Stack, network: DemoNetwork) -> None:
    """A worker that comes while a sync call walks helps or ends; no site is called twice, no job fails."""
    slow_down(network, 100)
    stack.set(concurrency=8)
    stack.web()
    queued = stack.trigger(defer=1).json()["run_id"]
    answers: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: answers.append(stack.trigger()))
    caller.start()
    until(lambda: stack.run(queued).status == "running")
    stack.worker()
    caller.join()
    assert (answers[0].status_code, answers[0].json()["run_id"], answers[0].json()["count"]) == (200, queued, 120)
    assert (network.stats()["calls"], network.stats()["ran_sites"]) == (120, 120)
    until(lambda: not stack.redis.llen(QUEUE))
    assert stack.redis.zcard("rq:failed:all-sites-cron") == 0


def test_a_client_that_hangs_up_does_not_stop_the_run(web: Stack, sites: DemoNetwork) -> None:
    """The run of a caller who went away ends as every other."""
    slow_down(sites, 700)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{web.client.base_url}{API}/run", headers=web.client.headers, timeout=0.2)
    run_id = text(web.redis.get(keys.ACTIVE))
    run = web.ended(run_id)
    assert (run.status, run.count) == ("succeeded", 6)
    assert sites.stats()["ran_sites"] == 6


def forget_job(redis: Redis) -> None:
    """The queued run's job is gone: its hash and its place in the queue."""
    for job in redis.lrange(QUEUE, 0, -1):
        redis.delete(f"rq:job:{text(job)}")
    redis.delete(QUEUE)


def test_a_trigger_finds_a_queued_run_that_lost_its_job(web: Stack, sites: DemoNetwork) -> None:
    """The next trigger joins the run and puts a job into the queue again."""
    queued = web.trigger(defer=1).json()["run_id"]
    forget_job(web.redis)
    assert web.trigger(defer=1).json()["run_id"] == queued
    assert web.redis.llen(QUEUE) == 1


def test_the_web_process_finds_a_queued_run_that_lost_its_job(web: Stack, sites: DemoNetwork) -> None:
    """Without any caller, the sweep of the web process queues it again within seconds."""
    queued = web.trigger(defer=1).json()["run_id"]
    forget_job(web.redis)
    until(lambda: web.redis.llen(QUEUE) == 1, 15)
    job = text(web.redis.lindex(QUEUE, 0))
    assert queued in text(web.redis.hget(f"rq:job:{job}", "data"))
    assert queued in web.log("web")


def test_a_trigger_finds_a_running_run_that_nobody_walks(web: Stack, sites: DemoNetwork) -> None:
    """It is told 409, and the run whose walkers are gone is queued again."""
    queued = web.trigger(defer=1).json()["run_id"]
    forget_job(web.redis)
    web.redis.hset(keys.run(queued), "status", "running")
    assert web.trigger(defer=1).json()["run_id"] == queued
    assert web.redis.llen(QUEUE) == 1
