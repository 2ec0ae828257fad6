"""The demo network: a real HTTP server that behaves like a WordPress multisite network with due cron events.

Beside the sites, each listener answers under `/_demo/`: the site list (`sites.csv`, `sites.json`, `sites.txt`,
`feed`, with `?dated=1` as the companion feed tells due times), the counts (`stats`, with `?sites=1` site by site),
and `POST arm?events=N`.
"""

import asyncio
import errno
import json
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Self

from wordpress.demo_connection import Connection, InFlight
from wordpress.demo_sites import Behaviour, DemoSite, DemoSites, netloc, plain_sites, standard_sites


class DemoNetwork:
    """A network of demo sites, listening on one port of several loopback addresses.

    `port` 0: a free one. `tls`: address → context; these addresses also listen with TLS, all on one other port, and
    sites with scheme https are there. `clock`: seconds, for the age of cron locks. Listens again on the same ports
    after `close()` and `start()`.
    """

    def __init__(
        self,
        sites: Sequence[DemoSite],
        addresses: Sequence[str] = ("127.0.0.1",),
        port: int = 0,
        tls: Mapping[str, ssl.SSLContext] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sites = DemoSites(sites)
        self.addresses = list(addresses)
        self.port = port
        self.tls_port = 0
        self.tls = dict(tls or {})
        self.clock = clock
        self.in_flight = InFlight()
        self.connections: set[Connection] = set()
        self._places: list[tuple[str, int]] = []
        self._tls_places: list[tuple[str, int]] = []
        self._reserved: dict[str, socket.socket] = {}  # address → where its dead sites are
        self._servers: list[asyncio.Server] = []

    @classmethod
    def standard(cls, sites: int = 60, addresses: int = 5, seed: int = 1, port: int = 0) -> Self:
        """The bundled network: see `standard_sites`."""
        names = loopback_addresses(addresses)
        return cls(standard_sites(sites, names, seed), names, port)

    @classmethod
    def plain(cls, sites: int, addresses: int = 1, latency_ms: float = 0, event_ms: float = 0, port: int = 0) -> Self:
        """A network without any trouble, for figures."""
        names = loopback_addresses(addresses)
        return cls(plain_sites(sites, names, latency_ms, event_ms), names, port)

    @property
    def origin(self) -> str:
        """`http://address:port` of the first listener, under which `/_demo/` is to be found."""
        return f"http://{netloc('http', *self._places[0])}"

    async def start(self) -> None:
        """Listen. Raises OSError if a port is taken."""
        sockets = [bind(*place) for place in self._places + self._tls_places] or self._bind()
        contexts = [None] * len(self._places) + list(self.tls.values())
        loop = asyncio.get_running_loop()
        for listener, context in zip(sockets, contexts, strict=True):
            self._servers.append(
                await loop.create_server(lambda: Connection(self), sock=listener, backlog=4096, ssl=context)
            )

    async def close(self) -> None:
        """Stop listening, cut every connection and wait until all are gone."""
        for listener in (listener for server in self._servers for listener in server.sockets):
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(2):  # turns of the loop until what was just accepted is a connection; Server.close() leaks it
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.cut()
        while self.connections:  # noqa: ASYNC110 - each is gone after a turn of the loop
            await asyncio.sleep(0)
        for reserved in self._reserved.values():
            reserved.close()
        self._servers, self._reserved = [], {}

    def arm(self, events: int = 1) -> None:
        """Make every site due with so many events, and start counting anew."""
        self.sites.arm(events)
        self.in_flight.restart()

    def stats(self) -> dict[str, object]:
        return {**self.sites.stats(), **self.in_flight.stats()}

    def target(self, site: DemoSite) -> str:
        """Where a site that redirects points to: its TLS port, `redirect_to`, or a path that no site of a host has."""
        if site.behaviour is Behaviour.REDIRECT_HTTPS:
            return f"https://{netloc('https', site.host, self.tls_port)}{site.path}wp-cron.php"
        others = (place for place in self._places if place != (site.host, site.port))
        place = next(others, ("elsewhere.invalid", 80))
        return site.redirect_to or f"http://{netloc('http', *place)}/moved-{site.id}/wp-cron.php"

    def _bind(self) -> list[socket.socket]:
        """Choose ports, put every site on its own, and reserve one port an address where nobody listens."""
        plain, secure = bind_all(self.addresses, self.port), bind_all(list(self.tls), 0)
        self._places = [listener.getsockname()[:2] for listener in plain]
        self._tls_places = [listener.getsockname()[:2] for listener in secure]
        self.port = self._places[0][1]
        self.tls_port = self._tls_places[0][1] if secure else 0
        real = dict(zip(self.addresses, self._places, strict=True))
        for site in self.sites.all:
            site.host, port = real.get(site.host, (site.host, self.port))
            if site.behaviour is Behaviour.DEAD:
                if site.host not in self._reserved:
                    self._reserved[site.host] = bind(site.host, 0)
                port = self._reserved[site.host].getsockname()[1]
            site.port = site.port or (self.tls_port if site.scheme == "https" else port)
        self.sites.index(self.tls_port)
        return plain + secure


def loopback_addresses(count: int) -> list[str]:
    """127.0.0.2 and on."""
    return [str(ip_address("127.0.0.2") + number) for number in range(count)]


def bind(address: str, port: int) -> socket.socket:
    """A bound TCP socket that does not listen yet: connecting to it is refused, and nobody else can take its port."""
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound


def bind_all(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """One port on every address; 0: one that is free on all.

    An address that does not exist here (systems that have no 127.0.0.2) becomes 127.0.0.1 with a port of its own.
    """
    for attempt in range(20):
        bound: list[socket.socket] = []
        chosen = port
        try:
            for address in addresses:
                try:
                    bound.append(bind(address, chosen))
                except OSError as error:
                    if error.errno != errno.EADDRNOTAVAIL:
                        raise
                    bound.append(bind("127.0.0.1", 0 if bound else chosen))
                chosen = chosen or bound[0].getsockname()[1]
        except OSError as error:
            for listener in bound:
                listener.close()
            if port or error.errno != errno.EADDRINUSE or attempt == 19:
                raise
        else:
            return bound
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def running(
    network: DemoNetwork, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
) -> Iterator[DemoNetwork]:
    """The network, answering from a thread with a loop of its own. Fields of sites may be set at any time."""
    loop = new_loop()
    thread = threading.Thread(target=loop.run_forever, name="demo-network", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(network.start(), loop).result()
        yield network
    finally:
        asyncio.run_coroutine_threadsafe(_end(network), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(network: DemoNetwork) -> None:
    await network.close()
    handshakes = asyncio.all_tasks() - {asyncio.current_task()}  # of TLS: not connections yet
    for handshake in handshakes:
        handshake.cancel()
    await asyncio.gather(*handshakes, return_exceptions=True)


def run(network: DemoNetwork, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
    """Serve until SIGTERM or SIGINT; says where in one JSON line on stdout as soon as it listens."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(network))


async def _serve(network: DemoNetwork) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await network.start()
    try:
        place = {
            "ready": True,
            "sites_url": f"{network.origin}/_demo/feed?dated=1",
            "stats_url": f"{network.origin}/_demo/stats",
            "port": network.port,
        }
        sys.stdout.write(json.dumps(place) + "\n")
        sys.stdout.flush()
        await ended.wait()
    finally:
        await network.close()
