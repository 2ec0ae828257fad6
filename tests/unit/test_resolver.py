"""Names to addresses: own threads, one look-up a name, the guard's verdict with the answer."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from jobs.addresses import AddressGuard, parse_networks
from jobs.resolver import Address, Answer, Blocked, Resolver, Unresolved

PUBLIC = "93.184.215.14"


class Names:
    """A getaddrinfo that answers from a table, holds look-ups while `gate` is closed, and counts them."""

    def __init__(self, table: dict[str, list[str]] | None = None) -> None:
        self.table = table or {}
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        with self._lock:
            self.asked.append(host)
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.gate.wait(20)
        with self._lock:
            self.now -= 1
        if host not in self.table and self.table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (ip, port)) for ip in self.table.get(host, [PUBLIC])]


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def names() -> Iterator[Names]:
    names = Names()
    yield names
    names.gate.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def resolver(names: Names, clock: Clock, woken: threading.Event) -> Iterator[Resolver]:
    with closing(Resolver(AddressGuard(), wake=woken.set, getaddrinfo=names, clock=clock)) as resolver:
        yield resolver


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.002)


def collected(resolver: Resolver, count: int) -> list[tuple[str, int]]:
    """The next `count` pairs answered."""
    pairs: list[tuple[str, int]] = []

    def enough() -> bool:
        pairs.extend(resolver.collect())
        return len(pairs) >= count

    until(enough)
    return pairs


def answer(resolver: Resolver, host: str, port: int = 80) -> Answer:
    """What `ask` says in the end."""
    found = resolver.ask(host, port)
    if found is None:
        until(lambda: (host, port) in resolver.collect())
        found = resolver.ask(host, port)
    assert found is not None
    return found


def test_the_answer_comes_later_and_wakes_the_walker(resolver: Resolver, names: Names, woken: threading.Event) -> None:
    """`ask` never waits: it says None, the thread wakes the loop, `collect` names the pair, `ask` knows."""
    names.gate.clear()
    assert resolver.ask("site.example", 443) is None
    assert not woken.is_set()
    assert resolver.collect() == []
    names.gate.set()
    assert woken.wait(10)
    assert resolver.collect() == [("site.example", 443)]
    assert resolver.ask("site.example", 443) == Address(PUBLIC)
    assert resolver.collect() == []


def test_one_wake_serves_all_answers_that_are_ready(names: Names) -> None:
    """The walker is disturbed once for many, and again for what comes after it has collected."""
    wakes: list[None] = []
    with closing(Resolver(AddressGuard(), wake=lambda: wakes.append(None), getaddrinfo=names)) as resolver:
        for i in range(20):
            resolver.ask(f"site{i}.example", 80)
        until(lambda: len(names.asked) == 20 and names.now == 0 and bool(wakes))
        assert len(wakes) < 10
        assert len(collected(resolver, 20)) == 20
        answered = len(wakes)
        resolver.ask("late.example", 80)
        until(lambda: len(wakes) > answered)


def test_a_name_is_looked_up_once(resolver: Resolver, names: Names) -> None:
    """Asked again while under way or within the ttl, no second look-up starts."""
    names.gate.clear()
    assert [resolver.ask("site.example", 80) for _ in range(5)] == [None] * 5
    names.gate.set()
    answer(resolver, "site.example")
    answer(resolver, "site.example")
    assert names.asked == ["site.example"]


def test_128_look_ups_run_at_once_and_no_more(names: Names) -> None:
    """400 names keep every thread busy, and no thread is started beyond them."""
    names.gate.clear()
    with closing(Resolver(AddressGuard(), wake=lambda: None, getaddrinfo=names)) as resolver:
        asked = [(f"site{i}.example", 80) for i in range(400)]
        for pair in asked:
            assert resolver.ask(*pair) is None
        until(lambda: names.now == 128)
        names.gate.set()
        assert sorted(collected(resolver, 400)) == sorted(asked)
        assert names.most == 128


def test_threads_start_only_as_needed_and_end_with_the_resolver(names: Names) -> None:
    """A run of one site does not start 128 threads; closed, none is left."""
    before = set(threading.enumerate())
    resolver = Resolver(AddressGuard(), wake=lambda: None, getaddrinfo=names)
    assert set(threading.enumerate()) <= before
    answer(resolver, "one.example")
    answer(resolver, "two.example")
    (thread,) = set(threading.enumerate()) - before
    resolver.close()
    thread.join(10)
    assert not thread.is_alive()


def test_what_waits_at_the_end_is_not_looked_up(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed, a thread ends after the look-up it is in, though more names were asked for."""
    monkeypatch.setattr("jobs.resolver.THREADS", 1)
    names.gate.clear()
    before = set(threading.enumerate())
    with closing(Resolver(AddressGuard(), wake=lambda: None, getaddrinfo=names)) as resolver:
        for i in range(3):
            resolver.ask(f"site{i}.example", 80)
        (thread,) = set(threading.enumerate()) - before
        until(lambda: names.now == 1)
    names.gate.set()
    thread.join(10)
    assert names.asked == ["site0.example"]


def test_an_answer_expires(resolver: Resolver, names: Names, clock: Clock) -> None:
    """After the ttl of 30 s a name is looked up again."""
    answer(resolver, "site.example")
    clock.time += 29
    assert resolver.ask("site.example", 80) == Address(PUBLIC)
    clock.time += 2
    assert resolver.ask("site.example", 80) is None
    until(lambda: len(names.asked) == 2)


def test_a_failure_is_forgotten_before_the_first_retry(resolver: Resolver, names: Names, clock: Clock) -> None:
    """The retry after 2 s looks again instead of hearing the old failure."""
    names.table = {"other.example": [PUBLIC]}
    assert answer(resolver, "site.example") == Unresolved("Name or service not known")
    assert isinstance(resolver.ask("site.example", 80), Unresolved)
    clock.time += 1.5
    names.table = {}
    assert answer(resolver, "site.example") == Address(PUBLIC)


def test_a_name_that_cannot_be_encoded_is_unresolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real getaddrinfo refuses an empty label with a UnicodeError; the thread lives on."""
    monkeypatch.setattr("jobs.resolver.THREADS", 1)
    with closing(Resolver(AddressGuard(), wake=lambda: None)) as resolver:
        assert answer(resolver, "a..example") == Unresolved("not a host name")
        assert answer(resolver, "b..example") == Unresolved("not a host name")


def test_a_look_up_without_end_is_given_up(resolver: Resolver, names: Names, clock: Clock) -> None:
    """A run always ends: after 30 s the name counts as unresolved, and the late answer is ignored."""
    names.gate.clear()
    assert resolver.ask("hangs.example", 80) is None
    clock.time += 31
    assert resolver.collect() == [("hangs.example", 80)]
    assert resolver.ask("hangs.example", 80) == Unresolved("no answer in 30 s")
    names.gate.set()
    until(lambda: names.now == 0)
    assert resolver.collect() == []


def test_the_cache_is_bounded(resolver: Resolver, names: Names) -> None:
    """Of 4,200 names the oldest are forgotten; memory does not grow with the network."""
    for i in range(4200):
        assert resolver.ask(f"site{i}.example", 80) is None
    assert len(collected(resolver, 4200)) == 4200
    known = sum(resolver.ask(f"site{i}.example", 80) is not None for i in range(4200))
    assert known == 4096


def test_the_first_allowed_address_is_taken(resolver: Resolver, names: Names) -> None:
    """In getaddrinfo's order; a refused one before it does not block the site."""
    names.table = {"mixed.example": ["10.0.0.1", "2606:2800:21f::1", PUBLIC]}
    assert answer(resolver, "mixed.example") == Address("2606:2800:21f::1")


def test_a_name_with_refused_addresses_only_is_blocked(resolver: Resolver, names: Names) -> None:
    """The first address is named, and what would allow it."""
    names.table = {"inside.example": ["169.254.169.254", "10.0.0.1"]}
    assert answer(resolver, "inside.example") == Blocked("169.254.169.254", "169.254.169.254/32")


@pytest.mark.parametrize(
    ("host", "reached", "allow"),
    [
        ("169.254.169.254", "169.254.169.254", "169.254.169.254/32"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1/32"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3/32"),
        ("::1", "::1", "::1/128"),
        ("[::1]", "::1", "::1/128"),
        ("fd00::5", "fd00::5", "fd00::5/128"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1", "127.0.0.1/32"),
        ("0x7f.1", "127.0.0.1", "127.0.0.1/32"),
        ("2130706433", "127.0.0.1", "127.0.0.1/32"),
        ("0177.0.0.1", "127.0.0.1", "127.0.0.1/32"),
    ],
)
def test_a_literal_is_judged_at_once_by_what_it_reaches(
    resolver: Resolver, names: Names, host: str, reached: str, allow: str
) -> None:
    """No thread and no look-up: the C library's own reading of `0x7f.1` and its like decides."""
    assert resolver.ask(host, 80) == Blocked(reached, allow)
    assert names.asked == []
    assert resolver.collect() == []


def test_allowed_networks_lift_the_block() -> None:
    """With 127.0.0.0/8 allowed the demo's sites are reached, however they are written."""
    with closing(Resolver(AddressGuard(parse_networks("127.0.0.0/8")), wake=lambda: None)) as resolver:
        assert resolver.ask("0x7f.1", 80) == Address("127.0.0.1")
        assert answer(resolver, "localhost") == Address("127.0.0.1")
        assert isinstance(resolver.ask("10.0.0.1", 80), Blocked)


def test_a_hung_look_up_does_not_keep_the_process() -> None:
    """At exit nobody waits for a thread that is inside getaddrinfo."""
    program = """if True:
        import threading
        from jobs.addresses import AddressGuard
        from jobs.resolver import Resolver
        inside = threading.Event()
        def hang(*_, **__):
            inside.set()
            threading.Event().wait()
        resolver = Resolver(AddressGuard(), wake=lambda: None, getaddrinfo=hang)
        resolver.ask("hangs.example", 80)
        assert inside.wait(10)
        resolver.close()
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
