"""A listing that others go on with, and a capped one that starts over: each site once, the cap exact."""

from tests.unit.due_rig import Schedules
from tests.unit.fakes import Cron
from tests.unit.walker_rig import Walk


def listed_by_one_that_died(made: Cron, cap: int, *, after: str, cursor: str, not_due: int) -> str:
    """A run whose first walker has listed so many sites, none of them due, and died."""
    run_id = made.trigger(cooldown=0).run_id
    made.start(run_id, "dead", cap=cap)
    lister = made.step(run_id, "dead", want=1).lister
    assert lister
    append = {"after": after, "cursor": cursor, "pages": [], "not_due": not_due}
    made.step(run_id, "dead", lister=lister[0], append=append)
    made.expire_leases(run_id, "dead")
    return run_id


def test_the_cap_is_exact_when_another_goes_on_listing() -> None:
    """Those with nothing due do not count towards NUMBER_OF_SITES: 50 of them listed, 60 due behind, four called."""
    made, network = Cron(number_of_sites=4, origin_concurrency=100), Schedules(110, due=range(51, 111))
    run_id = listed_by_one_that_died(made, 4, after="", cursor="50".zfill(20), not_due=50)
    walk = Walk(made, network.answer, lambda: network, "next")
    assert walk.walk(run_id).status == "succeeded"
    assert len(walk.triggered) == 4
