"""A listing that others go on with, and a capped one that starts over: each site once, the cap exact."""

import threading

import structlog

from jobs import keys
from jobs.lister import Lease, Lister
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


def test_a_run_that_has_started_over_ends_where_it_began_when_another_goes_on_listing() -> None:
    """Of 20 sites, begun behind 10, those behind it and the first three are listed: each is counted once."""
    made, network = Cron(number_of_sites=4, batch_size=3, origin_concurrency=100), Schedules(20, due=[7, 15])
    begin = "10".zfill(20)
    made.redis.set(keys.CURSOR, begin)
    run_id = listed_by_one_that_died(made, 4, after=begin, cursor="3".zfill(20), not_due=13)
    walk = Walk(made, network.answer, lambda: network, "next")
    walk.walk(run_id)
    assert [url.rpartition("/")[2] for url in walk.triggered] == ["7"], "15 was seen, and was not due then"
    assert (made.run(run_id).status, made.run(run_id).count) == ("succeeded", 20)


def test_a_run_that_another_goes_on_listing_starts_over_if_nothing_was_due() -> None:
    """As it would have without the crash."""
    made, network = Cron(number_of_sites=4, batch_size=3, origin_concurrency=100), Schedules(20, due=[7])
    begin = "10".zfill(20)
    made.redis.set(keys.CURSOR, begin)
    run_id = listed_by_one_that_died(made, 4, after=begin, cursor="13".zfill(20), not_due=3)
    walk = Walk(made, network.answer, lambda: network, "next")
    walk.walk(run_id)
    assert (len(walk.triggered), made.run(run_id).count) == (1, 20)


class SlowToCount(Schedules):
    """A source that says how much is left, or goes on reading, only when `go` is set."""

    def __init__(self, count: int, *, due: list[int]) -> None:
        super().__init__(count, due=due)
        self.go = threading.Event()

    def remaining(self, after: str) -> int | None:
        self.go.wait(10)
        return None


def test_a_page_whose_cursor_is_where_the_run_began_is_not_lost() -> None:
    """A source of one page whose count of what is left is not known: begun behind the last site, it starts over."""
    network, woken = SlowToCount(20, due=[2, 3]), threading.Event()
    made = Cron(number_of_sites=2)
    lease = Lease("token", cursor="20".zfill(20), left=2, begin="20".zfill(20), fresh=True)
    lister = Lister(lease, lambda: network, made.settings, woken.set, structlog.get_logger())
    woken.wait(0.2)  # a page that came alone would be here by now
    early = lister.take()
    network.go.set()
    while "append" not in (late := lister.take()):
        woken.wait(1)
    assert sum(page["n"] for taken in (early, late) for page in taken.get("append", {}).get("pages", ())) == 2
