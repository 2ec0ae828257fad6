"""The retry lane: what is tried again, when, and how often (CONTRACT section 4)."""

from itertools import pairwise
from typing import Any

import pytest

from jobs.outcomes import Outcome
from tests.unit.fakes import urls
from tests.unit.window_rig import FRONT, MakeRig, first_fails


def test_a_failure_that_may_pass_is_tried_again_after_2_8_and_30_seconds(rig: MakeRig) -> None:
    """With a fifth of jitter either way, three times at most; then it is settled, once."""
    made = rig(first_fails({"error": "connect"}))
    made.hold(urls(3))
    made.run()
    times = made.engine.times(FRONT)
    waits = [later - earlier - 0.1 for earlier, later in pairwise(times)]
    assert len(waits) == 3
    for wait, delay in zip(waits, (2, 8, 30), strict=True):
        assert 0.8 * delay - 0.01 <= wait <= 1.2 * delay + 0.01
    assert abs(waits[0] - 2.0) > 0.001, "jittered, lest all sites of a server that was down come back at once"
    assert (made.out(), made.settled) == ("cdd", [(FRONT, Outcome.CONNECT)])


def test_a_retry_that_succeeds_is_no_failure(rig: MakeRig) -> None:
    """Nobody hears of the first attempt."""
    answers = iter([{"error": "connect"}, {"status": 503}, {}])
    made = rig(lambda _url: (0.1, next(answers)))
    made.hold(urls(1))
    made.run()
    assert (made.out(), made.settled, made.window.attempted) == ("d", [], 3)


@pytest.mark.parametrize(("asked", "wait"), [(0, 0), (5, 5), (120, 120), (3600, 120)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_says_when_to_come_back(rig: MakeRig, status: int, asked: int, wait: int) -> None:
    """Retry-After replaces the delay, without jitter, at most 120 s."""
    made = rig(first_fails({"status": status, "retry_after": asked}), retries=1)
    made.hold(urls(2))
    made.run()
    assert made.engine.times(FRONT) == [0.0, pytest.approx(wait + 0.1)]


@pytest.mark.parametrize(
    "fields",
    [{"error": "timeout"}, {"error": "reset"}, {"error": "tls"}]
    + [{"status": status} for status in (302, 401, 404, 408, 500, 501)],
)
def test_what_may_have_been_done_or_will_not_pass_is_not_tried_again(rig: MakeRig, fields: dict[str, Any]) -> None:
    """A timeout after sending, other 4xx and 5xx, a bad certificate, a redirect."""
    made = rig(first_fails(fields))
    made.hold(urls(2))
    made.run()
    assert made.engine.times(FRONT) == [0.0]
    assert "." not in made.out()


@pytest.mark.parametrize(
    "fields", [{"error": "connect"}, {"error": "tls", "passing": True}] + [{"status": s} for s in (429, 502, 503, 504)]
)
def test_what_may_pass_is_tried_again(rig: MakeRig, fields: dict[str, Any]) -> None:
    """As often as MAX_RETRIES says."""
    for retries in (0, 2):
        made = rig(first_fails(fields), retries=retries)
        made.hold(urls(2))
        made.run()
        assert len(made.engine.times(FRONT)) == 1 + retries


def test_a_name_without_an_address_is_asked_again(rig: MakeRig) -> None:
    """Without a trigger being sent; then it failed with reason dns."""
    made = rig(retries=1)
    made.hold(["http://no.such.example"])
    made.run()
    assert (made.looked_up, made.out()) == (["no.such.example"] * 2, "n")
    assert (made.engine.started, made.window.attempted) == ([], 0)


def test_a_retry_that_the_budget_refuses_is_settled_as_it_failed(rig: MakeRig) -> None:
    """Those that waited longest get what is granted."""
    made = rig(lambda _url: (0.1, {"status": 503}), retries=1)
    made.hold(urls(5))
    made.run(1.0, grant=2)
    assert (made.out(), len(made.settled)) == ("..555", 3)
    made.run()
    assert (made.out(), len(made.engine.started)) == ("55555", 7)


def test_the_retry_lane_holds_no_slot(rig: MakeRig) -> None:
    """While sites wait for their next try, others are triggered."""
    made = rig(
        lambda url: (0.05, {"error": "tls", "passing": True} if url.endswith(("-0", "-1", "-2")) else {}), concurrency=2
    )
    made.hold(urls(40))
    made.run(1.9)
    assert made.out().count(".") == 3
    assert made.out().count("d") == 37
