"""Due times from a feed, served by a real server on loopback."""

import ipaddress
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from jobs.addresses import AddressGuard
from jobs.errors import SourceError
from jobs.sites import NEVER
from jobs.sources import DUE_PAGE, State
from jobs.sources.feed import FeedSource
from tests.unit.loopback import request, serving

NOW = 1_790_000_000

Asked = list[dict[str, str]]
Connect = Callable[[object], tuple[FeedSource, Asked]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A source of a feed that answers a query by this function, or always with this JSON; and the queries it got."""
    sources: list[FeedSource] = []
    with serving() as serve:

        def connect(answer: object) -> tuple[FeedSource, Asked]:
            asked: Asked = []

            def handle(peer: socket.socket) -> None:
                target = request(peer).split()[1].decode()
                asked.append({name: values[0] for name, values in parse_qs(urlsplit(target).query).items()})
                body = json.dumps(answer(asked[-1]) if callable(answer) else answer).encode()
                peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)

            guard = AddressGuard([ipaddress.ip_network("127.0.0.1/32")])
            sources.append(FeedSource(f"http://127.0.0.1:{serve(handle)}/feed?network=2", token=None, guard=guard))
            return sources[-1], asked

        yield connect
        for source in sources:
            with closing(source):
                pass


def site(number: int, **more: object) -> dict[str, object]:
    return {"id": number, "url": f"http://s{number}.example", **more}


def page(*sites: dict[str, object], following: int | None = None, **more: object) -> dict[str, object]:
    return {"version": 1, "sites": sites, "next": following, **more}


def network(count: int) -> Callable[[dict[str, str]], dict[str, object]]:
    """A feed of `count` sites with due times."""

    def answer(query: dict[str, str]) -> dict[str, object]:
        first, limit = int(query["after"]) + 1, int(query["limit"])
        last = min(count, first + limit - 1)
        sites = [site(n, next_due=NOW + n) for n in range(first, last + 1)]
        return page(*sites, following=last if last < count else None, now=NOW)

    return answer


def test_sites_have_their_next_due_and_pages_the_feeds_clock(connect: Connect) -> None:
    """null is NEVER; an entry without the field is one the feed cannot tell of."""
    source, _ = connect(page(site(1, next_due=NOW - 5), site(2, next_due=None), site(3), now=NOW))
    assert not source.knows_due
    (listed,) = source.pages("", 9)
    assert listed.now == NOW
    assert [found.due for found in listed.sites] == [NOW - 5, NEVER, None]
    assert source.knows_due


@pytest.mark.parametrize(("next_due", "due"), [(-(10**18), 0), (10**19, NEVER), ("1790000001", NOW + 1)])
def test_any_whole_number_is_a_due_time(connect: Connect, next_due: object, due: int) -> None:
    """Long ago is 0 and beyond all times NEVER, as nothing past 2**53 can be kept."""
    source, _ = connect(page(site(1, next_due=next_due), now=NOW))
    assert [found.due for listed in source.pages("", 9) for found in listed.sites] == [due]


def test_without_a_clock_of_the_feed_its_due_times_are_not_used(connect: Connect) -> None:
    """There is nothing to compare them with."""
    source, _ = connect(page(site(1, next_due="x"), site(2, next_due=NOW)))
    assert [(listed.now, [found.due for found in listed.sites]) for listed in source.pages("", 9)] == [
        (None, [None, None])
    ]
    assert not source.knows_due


def test_due_times_of_a_complete_list_are_not_used(connect: Connect) -> None:
    """They are as old as the list."""
    source, _ = connect([site(1, next_due=NOW)])
    assert [(listed.now, listed.sites[0].due) for listed in source.pages("", 9)] == [(None, None)]


@pytest.mark.parametrize("wrong", ["soon", 1.5, [], {}])
def test_a_wrong_next_due_is_named_by_its_entry(connect: Connect, wrong: object) -> None:
    """And only that site is left out."""
    source, _ = connect(page(site(1, next_due=wrong), site(2, next_due=NOW), now=NOW))
    assert [found.id for listed in source.pages("", 9) for found in listed.sites] == ["2"]
    (problem,) = source.problems.first
    assert problem.startswith("feed page after=0 entry 1: next_due is ")


def test_a_wrong_clock_is_a_source_error(connect: Connect) -> None:
    """Nothing could be called due by it."""
    with pytest.raises(SourceError, match='feed: now is "today", not a number'):
        list(connect(page(site(1), now="today"))[0].pages("", 9))


def test_once_it_knows_due_times_a_feed_is_read_in_large_pages(connect: Connect) -> None:
    """The first page tells; a larger size stays."""
    source, asked = connect(network(2 * DUE_PAGE + 100))
    assert [len(listed.sites) for listed in source.pages("", 50)] == [50, DUE_PAGE, DUE_PAGE, 50]
    assert [query["limit"] for query in asked] == ["50", "500", "500", "500"]
    assert [len(listed.sites) for listed in source.pages("", 1000)] == [1000, 100]


def states(*entries: object, **more: object) -> dict[str, object]:
    return {"version": 1, "now": NOW, "states": entries, **more}


def test_states_are_asked_for_by_id(connect: Connect) -> None:
    """In one request; a source that has not read a page yet can do it, too."""
    answer = states({"id": 1, "next_due": NOW, "locked": 0}, {"id": 22, "next_due": None, "locked": NOW - 3.25})
    source, asked = connect(answer)
    assert source.states(["1", "3", "22"]) == (NOW, {"1": State(NOW, 0), "22": State(NEVER, NOW - 3.25)})
    assert asked == [{"network": "2", "ids": "1,3,22"}]


def test_states_that_were_not_asked_for_are_left_out(connect: Connect) -> None:
    """Whatever the feed adds."""
    source, _ = connect(states({"id": 1, "next_due": NOW, "locked": 0}, {"id": 2, "next_due": NOW, "locked": 0}))
    assert set(source.states(["2"])[1]) == {"2"}


def test_sites_without_an_id_are_not_asked_for(connect: Connect) -> None:
    """A feed knows numbers only."""
    source, asked = connect(states())
    assert source.states(["u-0123456789ab"]) == (0, {})
    assert asked == []


@pytest.mark.parametrize("answer", [page(site(1)), page(site(1), now=NOW), [site(1)]])
def test_a_feed_that_does_not_know_states_tells_of_none(connect: Connect, answer: object) -> None:
    """It answers `ids` as if it were not there."""
    source, _ = connect(answer)
    assert source.states(["1"]) == (0, {})


def test_a_complete_list_is_not_asked_for_again_to_learn_states(connect: Connect) -> None:
    """It may be large, and tells of none."""
    source, asked = connect([site(1)])
    list(source.pages("", 9))
    assert source.states(["1"]) == (0, {})
    assert len(asked) == 1


GOOD: dict[str, Any] = {"id": 1, "next_due": NOW, "locked": 0}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (states(GOOD, version=2), "answers in version 2"),
        (states(GOOD, now=None), 'now is "None", not a number'),
        (states("x"), "a state is 'x', not a site's id, next_due and locked"),
        (states(GOOD | {"id": "1"}), "a state is {'id': '1'"),
        (states({"id": 1, "locked": 0}), "a state is {'id': 1, 'locked': 0}"),
        (states(GOOD | {"next_due": "soon"}), 'next_due is "soon", not a number'),
        *((states(GOOD | {"locked": locked}), "a state is ") for locked in (-1, None, "", float("nan"), 10**400)),
    ],
)
def test_wrong_states_are_a_source_error(connect: Connect, answer: object, error: str) -> None:
    """It shows which."""
    with pytest.raises(SourceError) as caught:
        connect(answer)[0].states(["1"])
    assert error in str(caught.value)
