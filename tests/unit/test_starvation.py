"""Nobody starves: random networks, caps, batch sizes and failures, with sites that come and go (CONTRACT section 5)."""

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.due_rig import NOW, Schedules
from tests.unit.fakes import Cron

FAILURES: list[dict[str, Any]] = [{"status": 500}, {"status": 404}, {"error": "timeout"}, {"error": "reset"}]


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Any]:
    """A network of 1 to 40 sites, and for each run which sites come, go and fail."""
    ids = draw(st.sets(st.integers(1, 200), min_size=1, max_size=40))
    changes = st.tuples(st.sets(st.integers(1, 200), max_size=4), st.sets(st.sampled_from(sorted(ids)), max_size=3))
    return {
        "ids": ids,
        "cap": draw(st.integers(1, 15)),
        "batch": draw(st.integers(1, 12)),
        "changes": draw(st.lists(changes, max_size=8)),
        "failing": draw(st.dictionaries(st.sampled_from(sorted(ids)), st.sampled_from(FAILURES), max_size=5)),
        "knows_due": draw(st.booleans()),
    }


@settings(max_examples=60, deadline=None)
@given(histories())
def test_a_site_present_throughout_is_served_in_time_and_none_twice_in_a_run(history: dict[str, Any]) -> None:
    """Within ceil(N_max / n) + 1 runs; a site that left is not called, nor is one that has nothing due."""
    made = Cron(number_of_sites=history["cap"], batch_size=history["batch"], origin_concurrency=100, max_retries=0)
    network = Schedules(0)
    network.broken = {str(n) for n in range(1, 201)}  # what is due stays due, so that only the order decides
    idle = {"301", "302", "7000"} if history["knows_due"] else set()
    network.due = {str(n): NOW - 60 for n in history["ids"]} | dict.fromkeys(idle, NOW + 60)
    network.answers = {str(n): answer for n, answer in history["failing"].items()}
    changes = list(history["changes"])
    throughout, most, served, runs = {str(n) for n in history["ids"]}, len(history["ids"]), set[str](), 0
    while runs < math.ceil(most / history["cap"]) + 1:
        _, triggered = network.run(made)
        runs += 1
        assert len(triggered) == len(set(triggered)) <= history["cap"]
        assert set(triggered) <= network.due.keys() - idle
        served |= set(triggered)
        if changes:
            come, go = changes.pop()
            network.due |= {str(n): NOW - 60 for n in come}
            for n in go:
                network.due.pop(str(n), None)
            throughout -= {str(n) for n in go}
            most = max(most, len(network.due) - len(idle))
    assert throughout <= served
