"""How many triggers an origin server gets at once, and when it is left alone (CONTRACT sections 4 and 6)."""

import heapq
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.fakes import Clock, urls
from tests.unit.window_rig import MakeRig, Rig

SERVICE = 0.04


class Pool:
    """A server with `k` workers; what finds none free waits, or gets a 502 once `backlog` wait."""

    def __init__(self, clock: Clock, k: int, backlog: int | None = None) -> None:
        self.clock, self.backlog, self.refused, self.turn = clock, backlog, 0, 0
        self.free = [0.0] * k
        self.ends: list[float] = []

    def resize(self, k: int) -> None:
        self.free = sorted(self.free)[-k:]

    def __call__(self, _url: str) -> tuple[float, dict[str, Any]]:
        now = self.clock()
        while self.ends and self.ends[0] <= now:
            heapq.heappop(self.ends)
        if self.backlog is not None and len(self.ends) >= len(self.free) + self.backlog:
            self.refused += 1
            return 0.001, {"status": 502}
        self.free.sort()
        self.turn += 41
        self.free[0] = max(now, self.free[0]) + SERVICE * (0.75 + 0.5 * (self.turn % 97) / 96)
        heapq.heappush(self.ends, self.free[0])
        return self.free[0] - now, {}


def pooled(made: Rig, k: int, backlog: int | None = None) -> Pool:
    """Let the rig's engine speak to such a server."""
    made.engine.answer = pool = Pool(made.clock, k, backlog)
    return pool


@pytest.mark.parametrize("backlog", [None, 8, 0])
@pytest.mark.parametrize("k", [2, 8, 32])
def test_a_server_is_used_to_its_limit_and_not_beyond(rig: MakeRig, k: int, backlog: int | None) -> None:
    """Nine tenths of what k workers can do, with under 1 % of refusals, whether the rest waits or is refused."""
    made = rig(concurrency=64, share=64, retries=0)
    pool, sites = pooled(made, k, backlog), 1000 + 150 * k
    made.hold(urls(sites))
    made.run()
    assert made.clock.time - 1000 < sites * SERVICE / k / 0.9
    assert pool.refused < sites / 100
    assert "." not in made.out()


def test_concurrency_grows_while_latency_holds(rig: MakeRig) -> None:
    """From eight, at once, to the share."""
    made = rig(concurrency=64, share=64)
    pooled(made, 100)
    made.hold(urls(2000))
    made.window.start_ready()
    assert made.engine.in_flight == 8
    made.run()
    assert made.engine.most["127.0.0.1"] == 64


def test_concurrency_shrinks_when_latency_rises(rig: MakeRig) -> None:
    """A server that loses most of its workers is left with few more requests than it can work on."""
    made = rig(concurrency=64, share=64)
    pool = pooled(made, 32)
    made.hold(urls(6000))
    made.run(4.0)
    before = made.engine.in_flight
    pool.resize(4)
    made.run(10.0)
    assert before > 24
    assert made.engine.in_flight <= 12


def test_concurrency_grows_again_when_the_server_recovers(rig: MakeRig) -> None:
    """Also when the server had refused."""
    made = rig(concurrency=64, share=64, retries=0)
    pool = pooled(made, 4, 0)
    made.hold(urls(6000))
    made.run(5.0)
    assert made.engine.in_flight <= 5
    pool.free += [0.0] * 28
    made.engine.most = {"": 0}
    made.run(15.0)
    assert made.engine.most[""] > 16


def test_a_server_that_loses_half_of_its_workers_refuses_few(rig: MakeRig) -> None:
    """Refusals at once are not taken for broken sites, however many good answers came before them."""
    made = rig(concurrency=64, share=64, retries=0)
    pool = pooled(made, 8, 0)
    made.hold(urls(1200))
    made.run(2.04)
    before = pool.refused
    pool.resize(4)
    made.run(1.0)
    assert made.engine.in_flight <= 5
    assert pool.refused - before <= 7


@pytest.mark.parametrize("fields", [{"error": "timeout"}, {"status": 503}, {"status": 429}, {"status": 404}])
def test_broken_sites_do_not_slow_their_server_down(rig: MakeRig, fields: dict[str, Any]) -> None:
    """One in a hundred fails whatever is in flight; the others go on eight at a time."""
    made = rig(lambda url: (1.0, fields) if url.endswith("50") else (0.05, {}), share=8, retries=0)
    made.hold(urls(2000))
    made.run()
    ideal = (1980 * 0.05 + 20 * 1.0) / 8
    assert made.clock.time - 1000 < ideal * 1.3


def test_a_server_that_refuses_most_gets_one_at_a_time(rig: MakeRig) -> None:
    """429 counts as 502 to 504 do."""
    made = rig(lambda url: (0.1, {} if url.endswith("0") else {"status": 429}), share=8, retries=0)
    made.hold(urls(300))
    made.run(8.0)
    assert made.engine.in_flight == 1


@pytest.mark.parametrize(("status", "asked", "wait"), [(429, 30, 30), (503, 30, 30), (503, 3600, 120), (502, 5, 5)])
def test_retry_after_holds_for_the_whole_server(rig: MakeRig, status: int, asked: int, wait: int) -> None:
    """No site of it is triggered before; the other servers' are, and the walker may claim more of them."""
    front = "http://127.0.0.1:8001/0"
    made = rig(retries=0)
    asking = {"status": status, "retry_after": asked}
    made.engine.answer = lambda url: (0.01, asking if url == front and made.clock.time < 1001 else {})
    many = [f"http://127.0.0.1:8001/{i}" for i in range(1500)]
    made.hold(many, [f"http://127.0.0.2:8001/{i}" for i in range(100)])
    made.run(2.0)
    assert (made.out(1), made.window.wanted > 0, made.window.idle) == ("d" * 100, True, False)
    made.run()
    paused = [time - 1000 for time, url, _ in made.engine.started if "127.0.0.1:" in url]
    first = next(time for time in paused if time > 0.011)
    assert first == pytest.approx(wait + 0.01)
    assert made.out() == ("4" if status == 429 else "5") + "d" * 1499


def test_answers_under_way_do_not_end_the_pause(rig: MakeRig) -> None:
    """What was in flight when the server asked for a pause may still be answered, or ask for a shorter one."""
    pauses = {"-0": (0.01, {"status": 503, "retry_after": 20}), "-1": (0.1, {"status": 503, "retry_after": 5})}
    made = rig(lambda url: pauses.get(url[-2:], (0.5, {})), retries=0)
    made.hold(urls(9) + [f"http://127.0.0.1:8001/more/{i}" for i in range(4)])
    made.run(10.0)
    assert made.out() == "55" + "d" * 6 + "." * 5
    made.run()
    assert made.out() == "55" + "d" * 11


KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"status": 502},
    {"status": 429, "retry_after": 3},
    {"error": "timeout"},
    {"error": "connect"},
    {"status": 404},
)


@given(
    answers=st.lists(st.tuples(st.floats(0.0, 12.0), st.sampled_from(KINDS)), min_size=1, max_size=40),
    shares=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    concurrency=st.integers(1, 30),
    sites=st.integers(1, 150),
)
@settings(max_examples=100, deadline=None)
def test_whatever_servers_answer_shares_hold_and_no_site_starves(
    answers: list[tuple[float, dict[str, Any]]], shares: list[int], concurrency: int, sites: int
) -> None:
    """Never more in flight than the walker's share of a server and CONCURRENCY; every site ends with an outcome."""
    turn = iter(range(10**9))
    made = Rig(lambda _url: answers[next(turn) % len(answers)], concurrency=concurrency, share=shares[0], retries=2)
    made.hold(urls(sites, addresses=2))
    for share in shares:
        most = made.window.using
        made.window.widen(share)
        made.engine.most = {"": 0}
        made.run(3.0)
        assert max([0, *(n for address, n in made.engine.most.items() if address)]) <= max(share, most)
        assert made.engine.most[""] <= concurrency
    made.run(100_000)
    assert (made.window.idle, made.out().count(".")) == (True, 0)
    made.resolver.close()
