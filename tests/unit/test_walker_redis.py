"""A walker while Redis is away, full or slow: nothing new is started, nothing lost."""

from collections.abc import Callable

import pytest
from redis import exceptions as redis_errors
from structlog.testing import capture_logs

from jobs.outcomes import Outcome
from tests.unit.fakes import letters, urls
from tests.unit.walker_rig import Network


def away(first: float, last: float) -> Callable[[float], Exception | None]:
    return lambda now: redis_errors.ConnectionError("gone") if first <= now < last else None


def test_while_redis_is_away_nothing_new_is_started(network: Network) -> None:
    """What is in flight is taken; when Redis is back the walk goes on, no site left out, none called twice."""
    network.sites = urls(3000, addresses=4)
    walk, run_id = network.walk(lambda _url: (0.5, {})), network.trigger()
    walk.scripts.trouble = away(2.0, 40.0)
    with capture_logs() as logs:
        assert walk.walk(run_id).status == "succeeded"
    times = [time - 1000 for time, _, _ in walk.engine.started]
    assert not [time for time in times if 2.6 < time < 40.0]
    assert [time for time in times if time >= 40.0]
    assert sorted(walk.triggered) == sorted(network.sites)
    assert letters(network.cron.run(run_id)) == {Outcome.DISPATCHED: 3000}
    events = [entry["event"] for entry in logs if entry["log_level"] in ("warning", "info")]
    assert sum("cannot be asked" in event for event in events) == 1
    assert "Redis is back" in events


def test_a_retry_that_is_due_while_redis_is_away_waits(network: Network) -> None:
    """Without asking the clock all the while; the fake engine fails a walker that spins."""
    network.sites = urls(1)
    answers = iter([{"error": "connect"}, {}])
    walk, run_id = network.walk(lambda _url: (0.1, next(answers))), network.trigger()
    walk.scripts.trouble = away(1.5, 30.0)
    assert walk.walk(run_id).status == "succeeded"
    assert walk.engine.times(network.sites[0])[1] >= 29


def test_answers_that_come_while_redis_does_not_hear_the_farewell_are_kept(network: Network) -> None:
    """They go with the farewell that it hears."""
    network.sites = urls(1)
    walk, run_id = network.walk(lambda _url: (5.6, {})), network.trigger()
    walk.scripts.trouble = away(5.0, 5.7)
    walk.stop = lambda: walk.clock.time > 1000.4
    assert walk.walk(run_id).status == "succeeded"


def test_a_walker_gives_up_when_redis_stays_away(network: Network) -> None:
    """After a minute its error is the job's; the lease is long gone and the run with others, or with the sweep."""
    walk, run_id = network.walk(), network.trigger()
    walk.scripts.trouble = away(0.0, 1e9)
    with pytest.raises(redis_errors.ConnectionError):
        walk.walk(run_id)
    assert 60 < walk.clock.time - 1000 < 62


@pytest.mark.parametrize(
    "error",
    [
        redis_errors.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        redis_errors.ReadOnlyError("You can't write against a read only replica."),
        redis_errors.BusyLoadingError("Redis is loading the dataset in memory"),
        redis_errors.TimeoutError("Timeout reading from socket"),
        redis_errors.ResponseError("MISCONF Errors writing to the AOF file"),
        redis_errors.ResponseError("Error running script (call to f_1): @user_script:1: -OOM command not allowed"),
        redis_errors.ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"),
        redis_errors.NoPermissionError("User default has no permissions to run the 'evalsha' command"),
    ],
)
def test_a_redis_that_cannot_serve_now_is_waited_for(network: Network, error: Exception) -> None:
    """Full, read-only, loading, slow, or closed to this user: as when it is away, also in the words of Redis 6.2."""
    walk, run_id = network.walk(), network.trigger()
    walk.scripts.trouble = lambda now: error if now < 3 else None
    assert walk.walk(run_id).status == "succeeded"


def test_a_wrong_question_is_not_asked_again(network: Network) -> None:
    """A wrong type in Redis is a fault that waiting does not mend."""
    walk, run_id = network.walk(), network.trigger()
    walk.scripts.trouble = lambda _now: redis_errors.ResponseError("WRONGTYPE Operation against a key")
    with pytest.raises(redis_errors.ResponseError):
        walk.walk(run_id)
    assert walk.scripts.steps == 1


def test_a_farewell_that_redis_does_not_hear_is_not_waited_for_long(network: Network) -> None:
    """Two seconds; then the lease has to run out."""
    walk, run_id = network.walk(), network.trigger()
    walk.scripts.trouble = away(0.1, 1e9)
    walk.stop = lambda: walk.clock.time > 1000.4
    assert walk.walk(run_id).status == "stopped"
    assert walk.clock.time - 1000 < 4
