"""One request to an http(s) address that a setting names: its address checked, its time, size and redirects bounded."""

import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Timer

import httpx

from jobs.addresses import AddressGuard, refused
from jobs.errors import OutboundError, SettingsError
from jobs.plain_text import plain
from jobs.trigger import USER_AGENT

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT}


@dataclass(frozen=True)
class Outbound:
    """How requests are sent: to addresses that `guard` lets pass, each within `deadline` seconds, names not counted.

    So many `redirects` are followed, the request sent on as it is and each address judged as the first one was; never
    from https to http; `Authorization` goes to its own origin only. Both methods raise OutboundError.
    """

    guard: AddressGuard
    tls: ssl.SSLContext
    deadline: float
    redirects: int = 0

    def request(
        self, method: str, url: httpx.URL | str, headers: Mapping[str, str], body: bytes = b"", *, max_bytes: int
    ) -> tuple[int, bytes]:
        """Status and body of the answer; the body may have `max_bytes`."""
        received = bytearray()
        with self.answering(method, url, headers, body) as response:
            for chunk in response.iter_raw():
                received += chunk
                if len(received) > max_bytes:
                    raise OutboundError(f"the answer is larger than {max_bytes} bytes")
        return response.status_code, bytes(received)

    @contextmanager
    def answering(
        self, method: str, url: httpx.URL | str, headers: Mapping[str, str], body: bytes = b""
    ) -> Iterator[httpx.Response]:
        """The answer as it comes in, to be read by `iter_raw` in the body of the `with` statement."""
        ends = time.monotonic() + self.deadline
        transport = httpx.HTTPTransport(verify=self.tls, trust_env=False)
        # Timeouts bound a single read; a slow drip, of headers too, ends when what it comes through is closed.
        timer = Timer(self.deadline, transport.close)
        timer.daemon = True
        timer.start()
        try:
            url = first = httpx.URL(url)
            for _ in range(self.redirects + 1):
                sent = _HEADERS | dict(headers)
                if (url.scheme, url.netloc) != (first.scheme, first.netloc):
                    sent.pop("Authorization", None)
                going = _pinned(method, url, sent, body, self.guard)
                going.extensions["timeout"] = httpx.Timeout(max(0.001, ends - time.monotonic())).as_dict()
                with closing(transport.handle_request(going)) as response:
                    if not response.has_redirect_location:
                        if response.is_success and response.headers.get("content-encoding", "identity") != "identity":
                            raise OutboundError("the answer is compressed, which was not asked for")
                        yield response
                        if time.monotonic() >= ends:  # what was cut off may look like an end
                            raise httpx.ReadTimeout("")
                        return
                url = _target(url, response.headers["location"])
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            late = f"no complete answer within {self.deadline:g} s"
            text = late if time.monotonic() >= ends else plain(str(error) or type(error).__name__)
            raise OutboundError(text) from None
        finally:
            timer.cancel()
            transport.close()
        raise OutboundError(f"redirects more than {self.redirects} times")


def _target(url: httpx.URL, location: str) -> httpx.URL:
    to = url.join(location)
    if to.scheme not in ("https", url.scheme) or not to.host:
        shown = plain(str(to.copy_with(userinfo=b"", query=None)), 80)
        raise OutboundError(f'redirects to "{shown}", which is no https:// address')
    return to


def _pinned(method: str, url: httpx.URL, headers: dict[str, str], body: bytes, guard: AddressGuard) -> httpx.Request:
    """Goes to the address that was checked; Host and the name that TLS verifies stay those of the URL."""
    host = url.raw_host.decode("ascii")
    headers["Host"] = url.netloc.decode("ascii")
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise OutboundError(f"{host} has no address ({error})") from None
    for address in found:
        if guard.refusal(address) is None:
            pinned, names = url.copy_with(host=address), {"sni_hostname": host}
            return httpx.Request(method, pinned, headers=headers, content=body, extensions=names)
    raise OutboundError(f"{host}: {refused(found[0], str(guard.refusal(found[0])))}")


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """What the setting SSL_VERIFY asks for; raises SettingsError."""
    if isinstance(verify, bool):
        return httpx.create_ssl_context(verify=verify, trust_env=False)
    return trusting(verify, "ALL_SITES_CRON_SSL_VERIFY is ")


def trusting(cafile: str | None, said: str) -> ssl.SSLContext:
    """Trusts the authorities of a file, None: the system's; raises SettingsError, which `said` begins."""
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise SettingsError(f"{said}{cafile}, which is no file of certificates: {error}") from None
