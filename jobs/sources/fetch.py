"""One GET of the operator's feed: guarded address, few redirects, one deadline for the whole answer."""

import codecs
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

import certifi
import httpx

from jobs.addresses import AddressGuard
from jobs.errors import SettingsError, SourceError
from jobs.sources.problems import masked, printable

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 3
_LOOK = 100  # bytes that are enough to see what an answer is
_MAX_BLANK = 64 * 1024  # bytes of white space before them


class Fetcher:
    """Asks from one address, by a new connection each time. `deadline`: seconds for one answer, redirects included."""

    def __init__(self, token: str | None, guard: AddressGuard, verify: bool | str, deadline: float) -> None:
        self._token = token
        self._guard = guard
        self._deadline = deadline
        closing = httpx.Limits(max_keepalive_connections=0)
        self._transport = httpx.HTTPTransport(verify=_tls(verify), trust_env=False, limits=closing)

    def get(self, url: httpx.URL, body: IO[bytes], limit: Callable[[bytes, str], int]) -> None:
        """Writes the answer into `body`.

        `limit(start, content_type)` looks at the first bytes behind BOM and white space, and says how many there may
        be. Raises SourceError, and what `limit` raises.
        """
        ends = time.monotonic() + self._deadline
        connections: list[socket.socket] = []
        # Timeouts bound a single read; a slow drip, of headers too, is cut by shutting what it comes through.
        timer = threading.Timer(self._deadline, _shut, (connections,))
        timer.daemon = True
        timer.start()
        try:
            with contextlib.closing(self._answer(url, ends, connections)) as response:
                _receive(response, body, limit)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if time.monotonic() < ends:
                raise SourceError(f"feed: {printable(str(error) or type(error).__name__, 200)}") from None
        finally:
            timer.cancel()
        if time.monotonic() >= ends:
            raise SourceError(f"feed: no complete answer within {self._deadline:g} s")

    def close(self) -> None:
        self._transport.close()

    def _answer(self, first: httpx.URL, ends: float, connections: list[socket.socket]) -> httpx.Response:
        def note(event: str, info: Mapping[str, Any]) -> None:
            if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
                connections.append(info["return_value"].get_extra_info("socket"))

        url = first
        for _ in range(_MAX_REDIRECTS + 1):
            if url.scheme not in _PORTS or not url.host:
                raise SourceError(f"feed: redirects to {masked(str(url))}, which is no http:// or https:// address")
            request = self._request(url, with_token=_origin(url) == _origin(first))
            timeout = httpx.Timeout(max(0.001, ends - time.monotonic())).as_dict()
            request.extensions |= {"timeout": timeout, "trace": note}
            response = self._transport.handle_request(request)
            if response.status_code == 200:
                return response
            response.close()
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                asked = f" from {masked(str(url))}, to which the token is not sent" if url != first else ""
                hint = "; is ALL_SITES_CRON_FEED_TOKEN right?" if response.status_code in (401, 403) else ""
                raise SourceError(f"feed: answer {response.status_code}{asked}{hint}")
            url = url.join(response.headers["location"])
        raise SourceError(f"feed: redirects more than {_MAX_REDIRECTS} times")

    def _request(self, url: httpx.URL, *, with_token: bool) -> httpx.Request:
        """Goes to the address that was checked; Host and the name that TLS verifies stay those of the URL."""
        host = url.raw_host.decode("ascii")
        headers = {"Host": url.netloc.decode("ascii"), "Accept": "application/json", "Accept-Encoding": "identity"}
        headers |= {"User-Agent": "all-sites-cron", "Connection": "close"}
        if self._token and with_token:
            headers["Authorization"] = f"Bearer {self._token}"
        pinned = url.copy_with(host=self._address(host, url.port or _PORTS[url.scheme]))
        return httpx.Request("GET", pinned, headers=headers, extensions={"sni_hostname": host})

    def _address(self, host: str, port: int) -> str:
        try:
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            raise SourceError(f"feed: {host} has no address ({error})") from None
        refused = [(address, self._guard.refusal(address)) for address in found]
        for address, network in refused:
            if network is None:
                return address
        address, network = refused[0]
        allow = f"ALL_SITES_CRON_ALLOWED_NETWORKS={network} would allow it"
        raise SourceError(f"feed: {host} has the address {address}, which is not a public one; {allow}")


def _receive(response: httpx.Response, body: IO[bytes], limit: Callable[[bytes, str], int]) -> None:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise SourceError("feed: the answer is compressed, which was not asked for")
    content_type = response.headers.get("content-type", "")
    start, size, most = b"", 0, 0
    for chunk in response.iter_raw():
        size += len(chunk)
        body.write(chunk)
        if not most:
            start = (start + chunk).removeprefix(codecs.BOM_UTF8).lstrip()[:_LOOK]
            most = limit(start, content_type) if len(start) == _LOOK else 0
        if size > (most or _MAX_BLANK):
            raise SourceError(f"feed: the answer is larger than {most or _MAX_BLANK} bytes")
    if not most:
        limit(start, content_type)


def _shut(connections: list[socket.socket]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # closed already
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not SSLSocket's own, which disturbs a reader


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme, 0)


def _tls(verify: bool | str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else certifi.where())
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"ALL_SITES_CRON_SSL_VERIFY is {verify}, which is no file of certificates: {error}"
        ) from None
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
