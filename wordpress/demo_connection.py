"""One connection to the demo network: a small HTTP/1.1 parser, the sites' ways of answering, the control paths."""

import asyncio
import json
import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import parse_qs

from wordpress.demo_sites import Behaviour, Call

if TYPE_CHECKING:
    from wordpress.demo_network import DemoNetwork

SCRIPT = "wp-cron.php"
HUGE_BYTES = 64 * 1024 * 1024
_PIECE = bytes(64 * 1024)
_MOST_BYTES = 1024 * 1024  # of a request not answered yet
_STATUS = {
    Behaviour.OK: "200 OK",
    Behaviour.REDIRECT_HTTPS: "301 Moved Permanently",
    Behaviour.REDIRECT: "302 Found",
    Behaviour.NOT_FOUND: "404 Not Found",
    Behaviour.ERROR500: "500 Internal Server Error",
    Behaviour.BUSY503: "503 Service Unavailable",
}


class Request(NamedTuple):
    """`has_body`: the body has at least one byte. `keep`: the connection stays open after the answer."""

    method: str
    path: str
    query: str
    host: str
    has_body: bool
    keep: bool


def parse(data: bytes) -> tuple[Request, int] | None:
    """The first request in `data` and its length, None while it is incomplete; ValueError if it is none."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    line, *fields = data[:end].decode("latin-1").split("\r\n")
    method, target, version = line.split(" ")
    headers = {}
    for header in fields:
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    path, _, query = target.partition("?")
    host = headers.get("host", "")
    keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    end += 4
    if "transfer-encoding" in headers:  # the first chunk's size says whether there is a body: the rest is not read
        line_end = data.find(b"\r\n", end)
        complete = line_end >= 0
        length = int(data[end:line_end].split(b";")[0], 16) if complete else 0
        end, keep = len(data), False
    else:
        length = int(headers.get("content-length", 0))
        end += length
        complete = length >= 0 and len(data) >= end
    return (Request(method, path, query, host, length > 0, keep), end) if complete else None


class InFlight:
    """How many wp-cron requests are read and not yet answered, now and at most, in all and by listening place."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.total = 0
        self.restart()

    def restart(self) -> None:
        self.most = {origin: number for origin, number in self.now.items() if number}
        self.most_total = self.total

    def enter(self, origin: str) -> None:
        self.now[origin] += 1
        self.total += 1
        self.most[origin] = max(self.most.get(origin, 0), self.now[origin])
        self.most_total = max(self.most_total, self.total)

    def leave(self, origin: str) -> None:
        self.now[origin] -= 1
        self.total -= 1

    def stats(self) -> dict[str, object]:
        return {"in_flight": self.total, "max_in_flight": self.most_total, "max_in_flight_by_origin": self.most}


class Connection(asyncio.Protocol):
    """Reads requests and answers them one at a time, in order."""

    def __init__(self, network: "DemoNetwork") -> None:
        self.network = network
        self.buffer = b""
        self.busy = False  # a request is being answered
        self.counted = False  # and is in flight
        self.paused = False
        self.timer: asyncio.TimerHandle | None = None
        self.unsent = 0  # bytes of a huge body
        self.chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.origin = "{}:{}".format(*transport.get_extra_info("sockname"))
        self.network.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.network.connections.discard(self)
        self.busy = True
        if self.timer:
            self.timer.cancel()
        self._left()

    def cut(self) -> None:
        """Close at once with RST, so that the peer sees `connection reset`."""
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.unsent:
            self._stream()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) > _MOST_BYTES:
            self.cut()
        self._read()

    def _read(self) -> None:
        while not self.busy and self.buffer:
            try:
                parsed = parse(self.buffer)
            except ValueError:
                self.request = Request("", "", "", "", has_body=False, keep=False)
                self._answer("400 Bad Request")
                return
            if parsed is None:
                return
            self.request, length = parsed
            self.buffer = self.buffer[length:]
            self.busy = True
            self._serve()

    def _serve(self) -> None:
        path, sites = self.request.path, self.network.sites
        if path.startswith("/_demo/"):
            self._control(path.removeprefix("/_demo/"))
        elif not path.endswith("/" + SCRIPT):
            found = path in sites.places.get(self.request.host.lower(), {})
            sites.wrong_calls += not found
            self._answer("200 OK" if found else "404 Not Found", b"demo site\n" if found else b"not found\n")
        else:
            call = sites.called(self.request.host, path.removesuffix(SCRIPT), self.request.query, self.request.has_body)
            self.counted = True
            self.network.in_flight.enter(self.origin)
            if call.site and call.site.latency_ms:
                loop = asyncio.get_running_loop()
                self.timer = loop.call_later(call.site.latency_ms / 1000, self._answer_late, call)
            else:
                self._answer_cron(call)

    def _answer_late(self, call: Call) -> None:
        self._answer_cron(call)
        self._read()

    def _answer_cron(self, call: Call) -> None:
        """Answer as the site behaves and start its events, which the answer does not wait for (PHP-FPM's early finish).

        They start just before the answer leaves, so that whoever has read it finds them counted.
        """
        site, behaviour = call.site, Behaviour.OK
        if site is None:
            self._answer("200 OK")
            return
        secure = self.transport.get_extra_info("sslcontext") is not None
        recovered = site.behaviour is Behaviour.BUSY503 and call.number > site.busy_calls
        if not recovered and not (site.behaviour is Behaviour.REDIRECT_HTTPS and secure):
            behaviour = site.behaviour
        if call.may_run and behaviour in (Behaviour.OK, Behaviour.HUGE, Behaviour.HUGE_CHUNKED):
            site.run_due_events(self.network.clock(), asyncio.get_running_loop().call_later)
        match behaviour:
            case Behaviour.HANG:
                pass  # in flight until the peer hangs up
            case Behaviour.RESET | Behaviour.DEAD:  # DEAD set too late: as near as it gets
                self.cut()
            case Behaviour.GARBAGE:
                self.transport.write(b"\x00\xffnothing that HTTP knows\r\n\r\n")
                self._end(keep=False)
            case Behaviour.HUGE | Behaviour.HUGE_CHUNKED:
                self._answer_huge(chunked=behaviour is Behaviour.HUGE_CHUNKED)
            case Behaviour.BUSY503:
                self._answer(_STATUS[behaviour], b"busy\n", f"Retry-After: {site.retry_after}\r\n")
            case Behaviour.REDIRECT | Behaviour.REDIRECT_HTTPS:
                target = f"{self.network.target(site)}?{self.request.query}"
                self._answer(_STATUS[behaviour], headers=f"Location: {target}\r\n")
            case _:
                self._answer(_STATUS[behaviour])

    def _control(self, name: str) -> None:
        network, sites, kind = self.network, self.network.sites, "application/json"
        query = {key: values[-1] for key, values in parse_qs(self.request.query).items()}
        try:
            match name:
                case "sites.csv":
                    kind, text = "text/csv", sites.csv()
                case "sites.txt":
                    kind, text = "text/plain", sites.txt()
                case "sites.json":
                    text = sites.json()
                case "feed" if "ids" in query:
                    text = json.dumps(sites.states(map(int, query["ids"].split(",")), network.clock()))
                case "feed":
                    after, limit = int(query.get("after", 0)), max(1, int(query.get("limit", 1000)))
                    text = json.dumps(sites.feed(after, limit, dated="dated" in query))
                case "stats":
                    text = json.dumps(network.stats() | ({"sites": sites.by_site()} if "sites" in query else {}))
                case "arm" if self.request.method == "POST":
                    network.arm(int(query.get("events", 1)))
                    text = json.dumps(network.stats())
                case _:
                    self._answer("404 Not Found", b"no such control path, or not with this method\n")
                    return
        except ValueError as error:
            self._answer("400 Bad Request", f"{error}\n".encode())
            return
        self._answer("200 OK", text.encode(), f"Content-Type: {kind}; charset=utf-8\r\n")

    def _answer(self, status: str, body: bytes = b"", headers: str = "") -> None:
        close = "" if self.request.keep else "Connection: close\r\n"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}{close}\r\n".encode("latin-1")
        self._left()
        self.transport.write(head if self.request.method == "HEAD" else head + body)
        self._end(keep=self.request.keep)

    def _answer_huge(self, *, chunked: bool) -> None:
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {HUGE_BYTES}"
        self.transport.write(f"HTTP/1.1 200 OK\r\n{length}\r\nConnection: close\r\n\r\n".encode())
        self.chunked = chunked
        self.unsent = 0 if self.request.method == "HEAD" else HUGE_BYTES
        self._stream()

    def _stream(self) -> None:
        while self.unsent and not self.paused and not self.transport.is_closing():
            self.transport.write(b"%x\r\n%s\r\n" % (len(_PIECE), _PIECE) if self.chunked else _PIECE)
            self.unsent -= len(_PIECE)
        if not self.unsent:
            if self.chunked and self.request.method != "HEAD":
                self.transport.write(b"0\r\n\r\n")
            self._end(keep=False)

    def _end(self, *, keep: bool) -> None:
        self.busy = not keep
        self._left()
        if not keep:
            self.transport.close()

    def _left(self) -> None:
        if self.counted:
            self.counted = False
            self.network.in_flight.leave(self.origin)
