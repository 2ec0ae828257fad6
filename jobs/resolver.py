"""Names to addresses: look-ups in threads of our own, many ahead of the requests that need them."""

import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeAlias

from jobs.addresses import AddressGuard

THREADS = 128  # at most; at 50 ms a name, what 100 triggers in flight that take 50 ms each use up, and some
_TTL, _FAILED_TTL = 30.0, 1.0  # seconds an answer is kept; a failure less than the first wait before a retry
_CACHE_SIZE = 4096
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV  # no look-up: the C library reads literals in any notation


class Address(NamedTuple):
    """The IP literal to connect to: the first of the name's addresses that the guard lets pass."""

    ip: str


class Unresolved(NamedTuple):
    """The name has no address, or none in time; `reason` is for a person."""

    reason: str


class Blocked(NamedTuple):
    """The guard refuses every address of the name: `ip` is the first, `allow` the ALLOWED_NETWORKS entry for it."""

    ip: str
    allow: str


Answer: TypeAlias = Address | Unresolved | Blocked
Pair: TypeAlias = tuple[str, int]


@dataclass(eq=False)
class Resolver:
    """Looks names up in daemon threads, which call `wake` when there is something to collect. For use by one thread."""

    guard: AddressGuard
    wake: Callable[[], None]
    patience: float = 30.0  # seconds a look-up may take, waiting for a thread included
    getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._cache: OrderedDict[Pair, tuple[float, Answer]] = OrderedDict()  # with the time it expires, oldest first
        self._under_way: dict[Pair, float] = {}  # with the time it was asked, oldest first
        self._questions: SimpleQueue[Pair | None] = SimpleQueue()
        self._found: deque[tuple[Pair, list[Any] | Unresolved]] = deque()  # filled by the threads
        self._threads, self._closed = 0, False
        self._woken = False  # and nothing collected since: one wake serves all answers that are ready

    def ask(self, host: str, port: int) -> Answer | None:
        """The answer, or None while its look-up is under way; IP literals in any notation are answered at once."""
        pair = (host, port)
        if pair in self._cache and self.clock() < self._cache[pair][0]:
            return self._cache[pair][1]
        if pair not in self._under_way:
            if host.rpartition(".")[2][:1].isdigit() or ":" in host:  # else no notation of an address: 0x7f.1, [::1]
                with suppress(OSError, ValueError):
                    return self._judge(socket.getaddrinfo(host.strip("[]"), port, 0, socket.SOCK_STREAM, 0, _NUMERIC))
            self._under_way[pair] = self.clock()
            self._questions.put(pair)
            if self._threads < min(THREADS, len(self._under_way)):
                self._threads += 1
                Thread(target=self._look_up, name=f"resolver-{self._threads}", daemon=True).start()
        return None

    def collect(self) -> list[Pair]:
        """The (host, port) pairs answered since the last call, in the order of their answers; `ask` knows them now."""
        self._woken = False  # before looking: an answer that comes now wakes again
        now, collected = self.clock(), []
        overdue = takewhile(lambda item: item[1] < now - self.patience, self._under_way.items())
        self._found.extend((pair, Unresolved(f"no answer in {self.patience:g} s")) for pair, _ in overdue)
        while self._found:
            pair, found = self._found.popleft()
            if self._under_way.pop(pair, None) is not None:  # else it was overdue
                answer = found if isinstance(found, Unresolved) else self._judge(found)
                self._cache[pair] = (now + (_FAILED_TTL if isinstance(answer, Unresolved) else _TTL), answer)
                self._cache.move_to_end(pair)
                collected.append(pair)
        while len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)
        return collected

    def close(self) -> None:
        """Let the threads end, each after the look-up it is in; nobody waits for them."""
        self._closed = True
        for _ in range(self._threads):
            self._questions.put(None)

    def _look_up(self) -> None:
        """A thread's life. Judging is left to `collect`: what these threads do for long is in the walker's way."""
        while (pair := self._questions.get()) and not self._closed:
            try:
                found: list[Any] | Unresolved = self.getaddrinfo(*pair, type=socket.SOCK_STREAM)
            except OSError as error:
                found = Unresolved(error.strerror or str(error))
            except ValueError:  # a label that is empty or too long
                found = Unresolved("not a host name")
            self._found.append((pair, found))
            if not self._woken:
                self._woken = True
                self.wake()

    def _judge(self, found: list[Any]) -> Answer:
        """The first address that may be called, else the first; getaddrinfo sorts them (RFC 6724)."""
        each = ((ip, self.guard.refusal(ip)) for *_, (ip, *_) in found)
        answers: list[Answer] = [Address(ip) if allow is None else Blocked(ip, allow) for ip, allow in each]
        return min(answers, key=lambda answer: isinstance(answer, Blocked), default=Unresolved("no address"))
