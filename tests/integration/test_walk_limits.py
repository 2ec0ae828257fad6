"""What a walk may cost: requests in flight, round trips to Redis, retries, and the cap on sites."""

import math
from collections.abc import Iterator

import pytest

from jobs.admission import Trigger, decide, request
from jobs.outcomes import Outcome
from jobs.world import build
from tests.integration.horses import begin, calls, late_sites, repeats, running, until_called
from tests.integration.stack import API, Stack, environ_of
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_never_has_more_in_flight_than_concurrency(stack: Stack, workers: int) -> None:
    """CONCURRENCY is each worker's own: n workers come to n times as much, and reach it."""
    with running(late_sites(400 * workers, latency_ms=20)) as network:
        stack.use(network)
        stack.set(concurrency=6, origin_concurrency=100)
        stack.web()
        for _ in range(workers):
            stack.worker()
        assert stack.ended(begin(stack)).status == "succeeded"
        assert 6 * (workers - 1) < network.in_flight.most_total <= 6 * workers


@pytest.mark.parametrize("workers", [1, 2])
def test_an_origin_server_never_has_more_in_flight_than_origin_concurrency(stack: Stack, workers: int) -> None:
    """ORIGIN_CONCURRENCY holds for all walkers of a run together, also while one more joins in the middle."""
    with running(late_sites(1500, addresses=4, latency_ms=20)) as network:
        stack.use(network)
        stack.set(origin_concurrency=3)
        stack.web()
        for _ in range(workers):
            stack.worker()
        run_id = begin(stack)
        until_called(network, 40)
        stack.worker()
        assert not stack.run(run_id).final
        assert stack.ended(run_id).status == "succeeded"
        assert list(network.in_flight.most.values()) == [3, 3, 3, 3]
        assert (network.stats()["ran_sites"], repeats(network)) == (1500, 0)


def test_slow_sites_do_not_hold_up_the_others(stack: Stack) -> None:
    """The window slides across batches: with 1 % of sites at 1 s, a barrier after each batch would cost 10 s."""
    with running(late_sites(1000, addresses=20, latency_ms=10)) as network:
        for site in network.sites.all[49::100]:
            site.latency_ms = 1000
        stack.use(network)
        stack.set(origin_concurrency=50)
        stack.web()
        stack.worker()
        run = stack.ended(begin(stack))
        assert run.status == "succeeded"
        assert run.ended_ms is not None
        assert run.started_ms is not None
        assert run.ended_ms - run.started_ms < 3000


@pytest.mark.parametrize("batch_size", [50, 200])
def test_a_checkpoint_costs_few_round_trips(stack: Stack, batch_size: int) -> None:
    """Checkpoints and claims together, whatever a batch is: some one or two scripts for 200 sites."""
    with running(DemoNetwork.plain(4000, addresses=20)) as network:
        stack.use(network)
        world = build(environ_of(stack, batch_size=batch_size))
        arguments, walker = request(trigger := Trigger("here", "cli", "test", 0))
        admitted = decide(world.scripts.admit(arguments), trigger, walker)
        stack.redis.config_resetstat()
        assert world.walk(admitted.run_id, walker, stop=lambda: False) == "succeeded"
        scripts = stack.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert network.stats()["events_run"] == 4000
        assert scripts <= 4000 / 200 * 3


@pytest.fixture
def capped(stack: Stack) -> Iterator[DemoNetwork]:
    """120 sites, 50 a run."""
    with running(DemoNetwork.plain(120)) as network:
        stack.use(network)
        stack.set(number_of_sites=50, batch_size=20, rate_limit_seconds=0)
        yield network


def test_a_cap_is_exact_and_the_next_run_goes_on_behind_it(stack: Stack, capped: DemoNetwork) -> None:
    """NUMBER_OF_SITES=50 of 120: 50, the next 50, the last 20, and from the start again, as the answers say."""
    stack.web()
    stack.worker()
    served = []
    for remaining in (70, 20, 0, 70):
        before = {site.id: site.calls for site in capped.sites.all}
        answer = stack.trigger().json()
        called = [site.id for site in capped.sites.all if site.calls > before[site.id]]
        served.append((called[0], called[-1]))
        assert (answer["count"], answer.get("remaining")) == (len(called), remaining)
    assert served == [(1, 50), (51, 100), (101, 120), (1, 50)]


def test_a_site_that_is_busy_for_a_moment_is_tried_again(stack: Stack, network: DemoNetwork) -> None:
    """503 with Retry-After, then 200: dispatched in the same run, and the run says how many retries it took."""
    for site in network.sites.all[:5]:
        site.behaviour = Behaviour.BUSY503
    stack.web()
    stack.worker()
    run = stack.ended(begin(stack))
    assert (run.status, run.counts, run.retries) == ("succeeded", {Outcome.DISPATCHED: 120}, 5)
    assert network.stats()["ran_sites"] == 120
    assert repeats(network) == 5


def test_a_site_is_tried_again_max_retries_times(stack: Stack, network: DemoNetwork) -> None:
    """A site that stays busy is called once and MAX_RETRIES times more, then it is a failure of the run."""
    site = network.sites.all[7]
    site.behaviour, site.busy_calls = Behaviour.BUSY503, 1000
    stack.set(max_retries=2)
    stack.web()
    stack.worker()
    run = stack.ended(begin(stack))
    assert (run.status, run.counts[Outcome.HTTP_5XX], run.retries) == ("partial", 1, 2)
    assert site.calls == 3


def test_retries_stay_within_the_budget_of_the_run(stack: Stack, network: DemoNetwork) -> None:
    """When a third of the sites is busy, a tenth of the run's sites is tried again and no more."""
    for site in network.sites.all[::3]:
        site.behaviour, site.busy_calls = Behaviour.BUSY503, 1000
    stack.set(max_retries=1)
    stack.web()
    stack.worker()
    run = stack.ended(begin(stack))
    assert (run.counts[Outcome.HTTP_5XX], run.retries) == (40, 12)
    assert calls(network) == 120 + math.ceil(120 / 10)


def test_a_dead_site_is_tried_again(stack: Stack) -> None:
    """Nobody listens on its port: one retry of MAX_RETRIES=1, then `connect`, with its address in the record."""
    made = late_sites(20, latency_ms=0)
    made.sites.all[10].behaviour = Behaviour.DEAD
    with running(made) as network:
        stack.use(network)
        stack.set(max_retries=1)
        stack.web()
        stack.worker()
        run_id = begin(stack)
        run = stack.ended(run_id)
        assert (run.counts, run.retries) == ({Outcome.DISPATCHED: 19, Outcome.CONNECT: 1}, 1)
        failing = stack.client.get(f"{API}/runs/{run_id}").json()["failing"]
        assert [(one["url"], one["reason"]) for one in failing] == [(network.sites.all[10].url, "connect")]
