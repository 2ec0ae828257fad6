"""Origin servers that are down: recognised after a few sites, asked once more at the end (CONTRACT section 5)."""

from typing import Any

import pytest

from jobs.outcomes import Outcome
from jobs.scripts import Claimed
from tests.unit.fakes import Cron, letters, urls
from tests.unit.walker_rig import Network
from tests.unit.window_rig import Answer, MakeRig

REFUSED, SILENT = 0.001, 10.0  # seconds until a server that refuses connections has failed, and one that drops them
DOWN = [f"http://127.0.0.1:8001/{i}" for i in range(1000)]
UP = [f"http://127.0.0.2:8001/{i}" for i in range(100)]


def dead(seconds: float, *places: str) -> Answer:
    """Servers on these addresses take no connections, the others answer well."""
    fields = {"error": "connect", "detail": "Connection refused"}
    return lambda url: (seconds, fields) if any(place in url for place in places or ("127.0.0.1:",)) else (0.05, {})


@pytest.mark.parametrize(("seconds", "at_most"), [(REFUSED, 3.0), (SILENT, 21.0)])
def test_a_dead_server_costs_a_timeout_or_two(rig: MakeRig, seconds: float, at_most: float) -> None:
    """However many sites it has: those in flight, then one at the end; all of them end as skipped: host_down."""
    made = rig(dead(seconds), concurrency=50)
    made.hold(DOWN, UP)
    made.run()
    assert (made.out(0), made.out(1)) == ("h" * 1000, "d" * 100)
    assert made.clock.time - 1000 < at_most
    assert len(made.engine.started) == 8 + 1 + 100
    assert {outcome for _, outcome in made.settled} == {Outcome.HOST_DOWN}
    assert len(made.settled) == 1000, "each is heard of once"
    assert made.details[0] == "127.0.0.1 port 8001 is down: Connection refused"


def test_a_server_whose_sites_fail_one_after_another_gets_no_more_of_them(rig: MakeRig) -> None:
    """The first failures are no reason to start sites that would need a timeout of their own."""
    made = rig(lambda url: (SILENT + int(url[-1]) / 10, {"error": "connect"}))
    made.hold(DOWN[:100])
    made.run()
    assert made.clock.time - 1000 < 25
    assert len(made.engine.started) == 8 + 1


def test_the_sites_of_a_dead_server_cost_the_others_nothing(rig: MakeRig) -> None:
    """They take no slot, no retry of the run's budget, and do not keep the walker from claiming more."""
    made = rig(dead(REFUSED))
    made.hold(DOWN)
    made.run(1.0, grant=0)
    assert (made.out(), made.window.retries_asked, made.engine.in_flight) == ("." * 1000, 0, 0)
    assert (made.window.wanted > 100, made.window.idle) == (True, False)
    made.window.hold([Claimed(1, "w", [[url, url] for url in UP + DOWN[:9]], "." * 109)])
    made.run(0.8)
    assert made.out(1) == "d" * 100 + "." * 9


def test_a_server_that_came_back_is_served_as_if_nothing_had_been(rig: MakeRig) -> None:
    """One site asks at the end of the walk; its answer lets all the others go."""
    made = rig()
    made.engine.answer = lambda _url: (0.05, {}) if made.clock.time > 1001 else (REFUSED, {"error": "connect"})
    made.hold(DOWN)
    made.run()
    assert (made.out(), made.settled) == ("d" * 1000, [])
    assert len(made.engine.started) == 1000 + 8
    assert made.engine.most["127.0.0.1"] == 8


def test_a_dead_server_is_asked_again_when_nothing_else_is_open(rig: MakeRig) -> None:
    """After the last answer of another server and the last retry; with a site that was not tried before."""
    slow, later = "http://127.0.0.2:8001/slow", "http://127.0.0.2:8001/later"

    def answer(url: str) -> tuple[float, dict[str, Any]]:
        if url == later:
            return 20.0, {"status": 503}
        return (9.0, {}) if url == slow else (REFUSED, {"error": "connect"})

    made = rig(answer, retries=1)
    made.hold([*DOWN[:20], slow, later])
    made.run()
    asked = [(time - 1000, url) for time, url, _ in made.engine.started if url not in (slow, later)]
    assert [url for time, url in asked if time > 1] == [DOWN[8]]
    assert asked[-1][0] > 40
    assert made.out() == "h" * 20 + "d5"


@pytest.mark.parametrize("error", ["tls", "reset", "timeout"])
def test_a_server_that_takes_connections_is_not_down(rig: MakeRig, error: str) -> None:
    """Whatever goes wrong after connecting is the failure of one site."""
    made = rig(lambda _url: (0.1, {"error": error}))
    made.hold(DOWN[:9])
    made.run()
    assert made.out() == {"tls": "l", "reset": "x", "timeout": "t"}[error] * 9


def test_only_sites_in_a_row_make_a_server_down(rig: MakeRig) -> None:
    """An answer in between says that it is up."""
    made = rig(lambda url: (0.1, {} if url in (DOWN[2], DOWN[5]) else {"error": "connect"}), share=1, retries=0)
    made.hold(DOWN[:6])
    made.run()
    assert made.out() == "ccdccd"


def test_retries_of_few_dead_sites_do_not_make_their_server_down(rig: MakeRig) -> None:
    """Two sites are tried as often as MAX_RETRIES says, and failed."""
    made = rig(dead(REFUSED))
    made.hold(DOWN[:2])
    made.run()
    assert (made.out(), len(made.engine.started)) == ("cc", 8)


def test_an_answer_that_was_under_way_opens_the_server_again(rig: MakeRig) -> None:
    """Three sites failed while a fourth was being answered."""
    made = rig(lambda url: (0.5, {}) if url in (DOWN[3], *DOWN[8:]) else (0.01, {"error": "connect"}))
    made.hold(DOWN[:20])
    made.run(1.6)
    assert made.out()[8:] == "d" * 12


def test_several_dead_servers_are_asked_again_together(rig: MakeRig) -> None:
    """Their timeouts do not add up."""
    made = rig(dead(SILENT, *(f"127.0.0.{i}:" for i in range(1, 6))), concurrency=50)
    made.hold(urls(300, addresses=6))
    made.run()
    assert (made.out().count("h"), made.out().count("d")) == (250, 50)
    assert made.clock.time - 1000 < 21


def test_held_sites_of_a_lost_batch_are_forgotten(rig: MakeRig) -> None:
    """Another walker has them; the rest goes on, and a server is asked again although its first question was lost."""
    made = rig(dead(SILENT))
    made.hold(DOWN[:20], DOWN[20:40])
    made.run(10.5)
    assert made.engine.in_flight == 1
    made.window.lose([0])
    made.run()
    assert (made.out(1), made.window.idle) == ("h" * 20, True)
    assert len(made.engine.started) == 8 + 2


# In a whole walk


def test_a_run_with_a_dead_server_ends(network: Network) -> None:
    """One walker claims all of its sites and settles them; they are errors of the run, each with its reason."""
    network.cron = Cron()
    network.sites = DOWN[:400] + UP
    walk, run_id = network.walk(dead(SILENT)), network.trigger()
    assert walk.walk(run_id).status == "partial"
    run = network.cron.run(run_id)
    assert letters(run) == {Outcome.DISPATCHED: 100, Outcome.HOST_DOWN: 400}
    assert (run.errors, run.retries, run.failures[0].reason) == (400, 0, "host_down")
    assert walk.clock.time - 1000 < 22


def test_held_sites_of_a_walker_that_stops_go_on_elsewhere(network: Network) -> None:
    """They are open; the next walker finds out for itself."""
    network.cron = Cron()
    network.sites = DOWN[:100] + UP
    walk, run_id = network.walk(dead(REFUSED), name="first"), network.trigger()
    walk.stop = lambda: walk.clock.time > 1001
    assert walk.walk(run_id).status == "stopped"
    assert letters(network.cron.run(run_id)) == {Outcome.DISPATCHED: 100}
    second = network.walk(name="second")
    assert second.walk(run_id).status == "succeeded"
    assert sorted(second.triggered) == sorted(DOWN[:100])
