"""The figures that the scripts keep for /metrics: every one counted once, whatever is sent twice."""

from typing import Any

from jobs import keys
from jobs.metrics import REQUEST_BUCKETS
from jobs.outcomes import Outcome
from tests.unit.fakes import Cron, changed
from tests.unit.walker_rig import Network


def counted(cron: Cron) -> dict[str, float]:
    """The hash as it is stored."""
    return {field.decode(): float(value) for field, value in cron.redis.hgetall(keys.METRICS).items()}


def durations(cron: Cron) -> dict[str, float]:
    """The fields of the requests' histogram."""
    return {f.removeprefix("request_seconds:"): n for f, n in counted(cron).items() if f.startswith("request_seconds:")}


def test_durations_of_a_step_sent_twice_are_counted_once(cron: Cron) -> None:
    """A walker tells all of its answers so far; what is new is the difference to what is counted."""
    run_id = cron.running(2)
    for seconds in ({"0.1": 2, "sum": 0.15}, {"0.1": 2, "sum": 0.15}, {"0.1": 3, "+Inf": 1, "sum": 40.5}):
        cron.step(run_id, "walker", seconds=seconds)
    assert durations(cron) == {"0.1": 3, "+Inf": 1, "sum": 40.5}


def test_walkers_durations_add_up(cron: Cron) -> None:
    """Also of several that walk one run."""
    run_id = cron.running(2)
    cron.start(run_id, "other")
    cron.step(run_id, "walker", seconds={"0.5": 1, "sum": 0.5})
    cron.step(run_id, "other", seconds={"0.5": 1, "sum": 0.25})
    assert durations(cron) == {"0.5": 2, "sum": 0.75}


def test_a_walker_that_comes_back_under_its_name_counts_from_zero(cron: Cron) -> None:
    """RQ starts the job of a dead worker again; what the first one had counted stays."""
    run_id = cron.running(2)
    cron.step(run_id, "walker", seconds={"0.5": 3, "sum": 1.5})
    cron.start(run_id, "walker", again=True)
    cron.step(run_id, "walker", seconds={"0.5": 1, "sum": 0.5})
    assert durations(cron) == {"0.5": 4, "sum": 2}


def test_a_run_and_its_outcomes_are_counted_once(cron: Cron) -> None:
    """The step that ends it may be sent again."""
    run_id = cron.running(3)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    for _ in range(2):
        cron.step(run_id, "walker", changed=[changed(claim, "dtn")])
    figures = counted(cron)
    assert {field: figures[field] for field in ("runs:partial", "requests:d", "requests:t", "requests:n")} == {
        "runs:partial": 1,
        "requests:d": 1,
        "requests:t": 1,
        "requests:n": 1,
    }
    assert sum(n for field, n in figures.items() if field.startswith("run_seconds:") and field[-3:] != "sum") == 1
    assert "last_success_ms" not in figures


def test_the_time_of_a_success_is_kept(cron: Cron) -> None:
    """That of the run's end, by the Redis clock."""
    run_id = cron.running(1)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    cron.step(run_id, "walker", changed=[changed(claim)])
    assert counted(cron)["last_success_ms"] == cron.run(run_id).ended_ms


def test_a_run_that_lasted_long_is_counted_in_its_bucket(cron: Cron) -> None:
    """The lowest one whose bound is not below it, in seconds."""
    run_id = cron.running(1)
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    cron.redis.hset(keys.run(run_id), "started_ms", cron.now() - 61_000)
    cron.step(run_id, "walker", changed=[changed(claim)])
    figures = counted(cron)
    assert figures["run_seconds:300.0"] == 1
    assert 61 <= figures["run_seconds:sum"] < 120


def test_a_walk_counts_every_answer_by_its_duration(network: Network) -> None:
    """Retries and failures, too: as many as were attempted."""

    def answer(url: str) -> tuple[float, dict[str, Any]]:
        number = int(url.rpartition("-")[2])
        return 0.05, {"seconds": (0.1, 0.3)[number % 2]} | ({"status": 503} if number == 7 else {})

    run_id = network.trigger()
    assert network.walk(answer).walk(run_id).finished
    assert network.cron.run(run_id).counts == {Outcome.DISPATCHED: 119, Outcome.HTTP_5XX: 1}
    found = durations(network.cron)
    assert found == {"0.1": 60, "0.5": 63, "sum": found["sum"]}
    assert round(found["sum"], 6) == round(60 * 0.1 + 63 * 0.3, 6)
    assert sum(found[b] for b in REQUEST_BUCKETS if b in found) == int(network.cron.get(run_id, "attempted") or 0)
