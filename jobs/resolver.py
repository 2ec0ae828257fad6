"""Names to addresses: look-ups in threads of our own, many ahead of the requests that need them.

Measured at 50 ms a look-up: asyncio's resolver threads give 118 names a second, libcurl's 20 threads 199;
neither can say which address was chosen before the request leaves, and the guard must know.
"""

import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeAlias

from jobs.addresses import AddressGuard

_CACHE_SIZE = 4096
_FAILED_TTL = 1.0  # seconds; shorter than the first wait before a retry, so that a retry looks again


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


class Resolver:
    """Looks names up in at most `threads` daemon threads and keeps each answer `ttl` seconds.

    `ask`, `collect` and `close` belong to one thread, the walker's. `wake` is called from the look-up threads whenever
    an answer is ready, so that the walker stops waiting for the network and collects it. A look-up that takes
    longer than `patience` seconds (waiting for a thread included) counts as unresolved.
    """

    def __init__(
        self,
        guard: AddressGuard,
        *,
        wake: Callable[[], None],
        threads: int = 64,
        ttl: float = 30.0,
        patience: float = 30.0,
        getaddrinfo: Callable[..., Any] = socket.getaddrinfo,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._guard, self._wake, self._ttl, self._patience = guard, wake, ttl, patience
        self._getaddrinfo, self._clock = getaddrinfo, clock
        self._most_threads = threads
        self._threads = 0
        self._cache: OrderedDict[Pair, tuple[float, Answer]] = OrderedDict()  # with the time it expires
        self._under_way: dict[Pair, float] = {}  # with the time it was asked, oldest first
        self._questions: SimpleQueue[Pair | None] = SimpleQueue()
        self._answers: deque[tuple[Pair, Answer]] = deque()  # filled by the threads

    def ask(self, host: str, port: int) -> Answer | None:
        """The answer, or None while its look-up is under way; IP literals in any notation are answered at once."""
        pair = (host, port)
        expires, answer = self._cache.get(pair, (0.0, None))
        if answer is not None and self._clock() < expires:
            self._cache.move_to_end(pair)
            return answer
        if pair not in self._under_way:
            literal = self._literal(host, port)
            if literal is not None:
                return literal
            self._under_way[pair] = self._clock()
            self._questions.put(pair)
            if self._threads < min(self._most_threads, len(self._under_way)):
                self._threads += 1
                Thread(target=self._look_up, name=f"resolver-{self._threads}", daemon=True).start()
        return None

    def collect(self) -> list[Pair]:
        """The (host, port) pairs answered since the last call, in the order of their answers; `ask` knows them now."""
        now = self._clock()
        collected = []
        while self._answers:
            pair, answer = self._answers.popleft()
            if self._under_way.pop(pair, None) is not None:
                self._keep(pair, answer, now)
                collected.append(pair)
        while self._under_way and now - next(iter(self._under_way.values())) > self._patience:
            pair = next(iter(self._under_way))
            del self._under_way[pair]
            self._keep(pair, Unresolved(f"no answer in {self._patience:g} s"), now)
            collected.append(pair)
        return collected

    def close(self) -> None:
        """Let the threads end, each after the look-up it is in; nobody waits for them."""
        with suppress(Empty):
            while True:
                self._questions.get_nowait()
        for _ in range(self._threads):
            self._questions.put(None)

    def _literal(self, host: str, port: int) -> Answer | None:
        """`0x7f.1`, `2130706433` and `[::1]` as the C library reads them, which is what a connection would reach."""
        try:
            found = socket.getaddrinfo(
                host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            )
        except (OSError, ValueError):
            return None
        return self._judge(found)

    def _look_up(self) -> None:
        while (pair := self._questions.get()) is not None:
            try:
                answer = self._judge(self._getaddrinfo(*pair, type=socket.SOCK_STREAM))
            except OSError as error:
                answer = Unresolved(error.strerror or str(error))
            except ValueError:  # a label that is empty or too long
                answer = Unresolved("not a host name")
            self._answers.append((pair, answer))
            self._wake()

    def _judge(self, found: list[Any]) -> Answer:
        """`found`: what getaddrinfo gave, best address first (RFC 6724)."""
        refused = []
        for *_, sockaddr in found:
            ip = sockaddr[0]
            allow = self._guard.refusal(ip)
            if allow is None:
                return Address(ip)
            refused.append(Blocked(ip, allow))
        return refused[0] if refused else Unresolved("no address")

    def _keep(self, pair: Pair, answer: Answer, now: float) -> None:
        ttl = min(self._ttl, _FAILED_TTL) if isinstance(answer, Unresolved) else self._ttl
        self._cache[pair] = (now + ttl, answer)
        self._cache.move_to_end(pair)
        if len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)
