"""The engine: many triggers in flight at once, from one thread, over libcurl's multi interface."""

import math
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

import certifi
import pycurl

from jobs.plain_text import plain

_EVENTS = (0, select.POLLIN, select.POLLOUT, select.POLLIN | select.POLLOUT)  # of curl's POLL_NONE, _IN, _OUT, _INOUT
_TLS_CODES = frozenset({35, 51, 53, 54, 58, 59, 60, 64, 66, 77, 80, 82, 83, 90, 91, 98})
Error: TypeAlias = Literal["dns", "connect", "tls", "reset", "timeout"]


class Result(NamedTuple):
    """How one trigger ended.

    `tag`: as given to `start`. `status`: HTTP, 0 = no answer that counts; then `error` says why, `detail` quotes curl,
    `passing`: nothing was sent and it may work in a moment. `redirect_url`: absolute. `retry_after`: seconds.
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
        """POST an empty body to `url`, whose host is ASCII and decides Host, SNI and certificate check.

        `address`: the IP literal to connect to. `headers`: lines `Name: value`, besides or instead of the usual ones.
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


class CurlEngine:
    """The Engine over pycurl. `timeout`: seconds for one trigger, connecting included.

    `verify`: certifi's authorities, those of a file or directory, or none at all. Off are cookies, redirects, proxies
    and compressed bodies. Connections are kept for the same host and address only.
    """

    def __init__(self, *, timeout: float, user_agent: str, verify: bool | str = True) -> None:
        authorities = certifi.where() if isinstance(verify, bool) else verify
        options: dict[int, object] = {
            pycurl.POSTFIELDS: "",  # makes it a POST
            pycurl.USERAGENT: user_agent,
            pycurl.TIMEOUT_MS: max(1, round(timeout * 1000)),
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.PROXY: "",  # else curl obeys http_proxy, and the proxy would choose the address
            pycurl.NOSIGNAL: 1,
            pycurl.DNS_CACHE_TIMEOUT: 0,  # curl caches pinned literals and prunes at each start: quadratic over sites
            pycurl.WRITEFUNCTION: len,  # takes the body and drops it
            pycurl.MAXFILESIZE: 65536,  # bytes; a longer body is cut off, it is not worth the time
            pycurl.SSL_VERIFYPEER: int(verify is not False),
            pycurl.SSL_VERIFYHOST: 0 if verify is False else 2,
            pycurl.CAPATH if Path(authorities).is_dir() else pycurl.CAINFO: authorities,  # _BLOB: parsed each time
        }
        self._model = pycurl.Curl()
        for option, value in options.items():
            self._model.setopt(option, value)
        self._flying: dict[pycurl.Curl, object] = {}  # with the tag
        self._spare: list[pycurl.Curl] = []
        self._due = math.inf  # when curl wants to be called though no socket is ready
        self._alarm, self._heard = socket.socketpair()
        self._alarm.setblocking(False)
        self._ready = select.poll()  # epoll: within 5 % up to 200 in flight, Linux only; selectors: 15 % slower
        self._ready.register(self._heard, select.POLLIN)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, 256)  # idle ones, that wait for another site of the same host

    def start(self, tag: object, url: str, address: str, headers: Sequence[str] = ()) -> None:
        curl = self._spare.pop() if self._spare else self._model.duphandle()
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.CONNECT_TO, [f"::[{address}]:" if ":" in address else f"::{address}:"])
        curl.setopt(pycurl.HTTPHEADER, ["Expect:", "Content-Type:", *headers])  # curl's additions to a POST: off
        self._multi.add_handle(curl)
        self._flying[curl] = tag

    def poll(self, wait: float) -> list[Result]:
        end = time.monotonic() + wait
        while True:
            woken = self._turn(end - time.monotonic())
            _, succeeded, failed = self._multi.info_read()
            results = [self._result(*each) for each in [*((curl, 0, "") for curl in succeeded), *failed]]
            if results or woken or time.monotonic() >= end:
                return results

    def wake(self) -> None:
        with suppress(OSError):  # full: poll will return anyway; closed: nobody is waiting
            self._alarm.send(b"!")

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    def close(self) -> None:
        for curl in (*self._flying, *self._spare, self._model):
            curl.close()
        self._flying.clear()
        self._multi.close()
        self._alarm.close()
        self._heard.close()

    def _turn(self, wait: float) -> bool:
        """Wait for curl's timer, sockets or `wake`, and let curl act on them; True if woken."""
        if self._due <= time.monotonic():  # first: it is what sends out the triggers started
            self._due = math.inf
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        woken, wait = False, min(wait, self._due - time.monotonic())
        for fd, events in self._ready.poll(max(0.0, wait * 1000)):
            if fd == self._heard.fileno():
                woken = True
                self._heard.recv(4096)
            else:  # a hang-up or an error counts as both: curl finds out by reading or writing
                readable = pycurl.CSELECT_IN if events & ~select.POLLOUT else 0
                writable = pycurl.CSELECT_OUT if events & ~select.POLLIN else 0
                self._multi.socket_action(fd, readable | writable)
        return woken

    def _watch(self, what: int, fd: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._ready.unregister(fd)
        else:
            self._ready.register(fd, _EVENTS[what])

    def _set_timer(self, milliseconds: int) -> None:
        self._due = math.inf if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _result(self, curl: pycurl.Curl, code: int, text: str) -> Result:
        self._multi.remove_handle(curl)
        self._spare.append(curl)
        tag, seconds = self._flying.pop(curl), curl.getinfo(pycurl.TOTAL_TIME)
        if code not in (pycurl.E_OK, pycurl.E_FILESIZE_EXCEEDED):
            error, passing = _reason(curl, code, text)
            return Result(tag, 0, error, plain(text or f"curl error {code}"), passing, seconds=seconds)
        status, target = curl.getinfo(pycurl.RESPONSE_CODE), curl.getinfo_raw(pycurl.REDIRECT_URL)
        redirect = plain(target.decode("ascii", "replace"), 2000) if target and 300 <= status < 400 else None
        return Result(tag, status, None, "", False, redirect, curl.getinfo(pycurl.RETRY_AFTER) or None, seconds)


def _reason(curl: pycurl.Curl, code: int, text: str) -> tuple[Error, bool]:
    """Why there is no answer that counts, from curl's error code and text, and whether that may pass."""
    sent = curl.getinfo(pycurl.REQUEST_SIZE) > 0
    if code in (pycurl.E_COULDNT_RESOLVE_PROXY, pycurl.E_COULDNT_RESOLVE_HOST):
        return "dns", True
    if code == pycurl.E_OPERATION_TIMEDOUT and not sent:
        return ("tls" if curl.getinfo(pycurl.CONNECT_TIME) > 0 else "connect"), True
    if code in _TLS_CODES:  # a connection cut during the handshake leaves an errno, or OpenSSL's word for it
        return "tls", curl.getinfo(pycurl.OS_ERRNO) != 0 or "unexpected eof" in text
    if sent:
        return "timeout" if code == pycurl.E_OPERATION_TIMEDOUT else "reset", False
    return "connect", code in (pycurl.E_COULDNT_CONNECT, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR)
