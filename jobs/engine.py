"""The engine: many triggers in flight at once, from one thread, over libcurl's multi interface.

The seam is `start` and `poll`; nothing here knows of runs, sites or retries.
"""

import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

import certifi
import pycurl

_BODY_CAP = 65536  # bytes of an answer's body that are read; the rest is not worth the time
_DETAIL_CAP = 200  # characters
_URL_CAP = 2000
_IDLE_CONNECTIONS = 256  # most that wait for another site of the same host
_NO_HEADERS = ("Expect:", "Content-Type:")  # curl's own additions to a POST, switched off
_EVENTS = {
    pycurl.POLL_IN: select.POLLIN,
    pycurl.POLL_OUT: select.POLLOUT,
    pycurl.POLL_INOUT: select.POLLIN | select.POLLOUT,
}
_TLS_CODES = frozenset({35, 51, 53, 54, 58, 59, 60, 64, 66, 77, 80, 82, 83, 90, 91, 98})

Error: TypeAlias = Literal["dns", "connect", "tls", "reset", "timeout"]


class Result(NamedTuple):
    """How one trigger ended.

    `tag`: what `start` was given. `status`: the HTTP status; 0 = no answer that counts, then `error` says why and
    `detail` what curl says (for a person; it may quote the site). `passing`: nothing was sent and the failure may be
    gone in a moment. `redirect_url`: where a 3xx points to, absolute. `retry_after`: seconds, None without such a
    header. `seconds`: from `start` to the end.
    """

    tag: object
    status: int
    error: Error | None = None
    detail: str = ""
    passing: bool = False
    redirect_url: str | None = None
    retry_after: int | None = None
    seconds: float = 0.0


class Engine(Protocol):
    """Sends triggers and reports how they ended. All but `wake` belong to one thread."""

    def start(self, tag: object, url: str, address: str, headers: Sequence[str] = ()) -> None:
        """Begin a trigger: POST an empty body to `url` at the IP literal `address`.

        `url` is ASCII, its host and port decide Host, SNI and certificate check. `headers`: lines `Name: value`
        without line ends, sent besides or instead of the usual ones.
        """

    def poll(self, wait: float) -> list[Result]:
        """The triggers that ended; waits at most `wait` seconds for the first one (0: not at all) or for `wake`."""

    def wake(self) -> None:
        """Make the running `poll`, or else the next, return. From any thread or signal handler, at any time."""

    @property
    def in_flight(self) -> int:
        """Triggers started and not yet reported by `poll`."""

    def close(self) -> None:
        """Drop what is in flight, unreported, and close every connection."""


@dataclass(slots=True)
class _Request:
    """One transfer: a reused curl handle, what it was started for and how much body it may still take."""

    curl: pycurl.Curl
    tag: object = None
    room: int = 0

    def take(self, chunk: bytes) -> int:
        self.room -= len(chunk)
        return len(chunk) if self.room >= 0 else -1  # -1 ends the transfer with curl's error 23


class CurlEngine:
    """The Engine over pycurl. `timeout`: seconds for one trigger, connecting included.

    `verify`: True = certifi's authorities, a path = that CA file or directory, False = certificates are not looked at.
    Cookies, redirects, proxies and compressed bodies are off. Connections are kept only for the same host and
    address, at most 256 idle ones.
    """

    def __init__(self, *, timeout: float, user_agent: str, verify: bool | str = True) -> None:
        self._options = _handle_options(timeout, user_agent, verify)
        self._flying: dict[pycurl.Curl, _Request] = {}
        self._spare: list[_Request] = []
        self._due: float | None = None  # when curl wants to be called though no socket is ready
        self._ready = select.poll()  # epoll: within 5 % up to 200 in flight, Linux only; selectors: 15 % slower
        self._alarm, self._alarm_end = socket.socketpair()
        self._alarm.setblocking(False)
        self._alarm_end.setblocking(False)
        self._ready.register(self._alarm_end, select.POLLIN)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, _IDLE_CONNECTIONS)

    def start(self, tag: object, url: str, address: str, headers: Sequence[str] = ()) -> None:
        request = self._spare.pop() if self._spare else self._new_request()
        request.tag, request.room = tag, _BODY_CAP
        curl = request.curl
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.CONNECT_TO, [f"::[{address}]:" if ":" in address else f"::{address}:"])
        curl.setopt(pycurl.HTTPHEADER, [*_NO_HEADERS, *headers])
        self._multi.add_handle(curl)
        self._flying[curl] = request

    def poll(self, wait: float) -> list[Result]:
        end = time.monotonic() + wait
        while True:
            woken = self._turn(end - time.monotonic())
            results = self._ended()
            if results or woken or time.monotonic() >= end:
                return results

    def wake(self) -> None:
        with suppress(OSError):  # full: poll will return anyway; closed: nobody is waiting
            self._alarm.send(b"!")

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    def close(self) -> None:
        for request in self._flying.values():
            self._multi.remove_handle(request.curl)
            request.curl.close()
        for request in self._spare:
            request.curl.close()
        self._flying.clear()
        self._spare.clear()
        self._multi.close()
        self._alarm.close()
        self._alarm_end.close()

    def _turn(self, wait: float) -> bool:
        """Wait for sockets, curl's timer or `wake`, and let curl act on them; True if woken."""
        if self._due is not None:
            wait = min(wait, self._due - time.monotonic())
        woken, alarm = False, self._alarm_end.fileno()
        for fd, events in self._ready.poll(max(0.0, wait * 1000)):
            if fd == alarm:
                woken = True
                self._alarm_end.recv(4096)
            else:  # a hang-up or an error counts as both: curl finds out by reading or writing
                readable = pycurl.CSELECT_IN if events & ~select.POLLOUT else 0
                writable = pycurl.CSELECT_OUT if events & ~select.POLLIN else 0
                self._multi.socket_action(fd, readable | writable)
        if self._due is not None and self._due <= time.monotonic():
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        return woken

    def _watch(self, what: int, fd: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._ready.unregister(fd)
        else:
            self._ready.register(fd, _EVENTS.get(what, 0))

    def _set_timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _ended(self) -> list[Result]:
        _, succeeded, failed = self._multi.info_read()
        return [self._result(curl, 0, "") for curl in succeeded] + [self._result(*failure) for failure in failed]

    def _result(self, curl: pycurl.Curl, code: int, text: str) -> Result:
        self._multi.remove_handle(curl)
        request = self._flying.pop(curl)
        self._spare.append(request)
        seconds = curl.getinfo(pycurl.TOTAL_TIME)
        if code == 0 or (code == pycurl.E_WRITE_ERROR and request.room < 0):
            status = curl.getinfo(pycurl.RESPONSE_CODE)
            redirect = curl.getinfo_raw(pycurl.REDIRECT_URL) if 300 <= status < 400 else None
            return Result(
                request.tag,
                status,
                redirect_url=_printable(redirect.decode("ascii", "replace"), _URL_CAP) if redirect else None,
                retry_after=curl.getinfo(pycurl.RETRY_AFTER) or None,
                seconds=seconds,
            )
        error, passing = _reason(curl, code, text)
        detail = _printable(text or f"curl error {code}", _DETAIL_CAP)
        return Result(request.tag, 0, error, detail, passing, seconds=seconds)

    def _new_request(self) -> _Request:
        curl = pycurl.Curl()
        for option, value in self._options.items():
            curl.setopt(option, value)
        request = _Request(curl)
        curl.setopt(pycurl.WRITEFUNCTION, request.take)
        return request


def _handle_options(timeout: float, user_agent: str, verify: bool | str) -> dict[int, object]:
    """What every trigger has in common. An authorities' file is parsed once; CAINFO_BLOB would be at each handshake."""
    milliseconds = max(1, round(timeout * 1000))
    options: dict[int, object] = {
        pycurl.POST: 1,
        pycurl.POSTFIELDS: "",
        pycurl.USERAGENT: user_agent,
        pycurl.TIMEOUT_MS: milliseconds,
        pycurl.CONNECTTIMEOUT_MS: milliseconds,
        pycurl.FOLLOWLOCATION: 0,
        pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
        pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
        pycurl.PROXY: "",  # else curl obeys http_proxy, and the proxy would choose the address
        pycurl.NOSIGNAL: 1,
        pycurl.DNS_CACHE_TIMEOUT: 0,  # curl caches even pinned literals and prunes at each start: quadratic over sites
    }
    if verify is False:
        return options | {pycurl.SSL_VERIFYPEER: 0, pycurl.SSL_VERIFYHOST: 0}
    authorities = certifi.where() if verify is True else verify
    return options | {pycurl.CAPATH if Path(authorities).is_dir() else pycurl.CAINFO: authorities}


def _reason(curl: pycurl.Curl, code: int, text: str) -> tuple[Error, bool]:
    """Why there is no answer that counts, from curl's error code and text, and whether that may pass."""
    sent = curl.getinfo(pycurl.REQUEST_SIZE) > 0
    if code in (pycurl.E_COULDNT_RESOLVE_PROXY, pycurl.E_COULDNT_RESOLVE_HOST):
        return "dns", True
    if code == pycurl.E_OPERATION_TIMEDOUT:
        if sent:
            return "timeout", False
        return ("tls" if curl.getinfo(pycurl.CONNECT_TIME) > 0 else "connect"), True
    if code in _TLS_CODES:  # a connection cut during the handshake leaves an errno, or OpenSSL's word for it
        return "tls", curl.getinfo(pycurl.OS_ERRNO) != 0 or "unexpected eof" in text
    if sent:
        return "reset", False
    return "connect", code in (pycurl.E_COULDNT_CONNECT, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR)


def _printable(text: str, cap: int) -> str:
    """Text that a site may have written, fit for a log line."""
    return "".join(c if c.isprintable() else "?" for c in text[:cap])
