"""One guarded request; what feeds do with it is tested there."""

import ipaddress
import ssl
from dataclasses import replace

import pytest

from jobs.addresses import AddressGuard
from jobs.errors import OutboundError
from jobs.outbound import Outbound, tls_context
from tests.unit.web_server import Handler, Serve

NOTHING: dict[str, str] = {}


@pytest.fixture(scope="module")
def outbound() -> Outbound:
    return Outbound(AddressGuard([ipaddress.ip_network("127.0.0.0/8")]), tls_context(True), deadline=10)


def test_a_post_carries_its_headers_and_body_and_gives_any_status(serve: Serve, outbound: Outbound) -> None:
    """An error is an answer."""
    received: list[bytes] = []

    def answer(handler: Handler) -> None:
        received.append(handler.body)
        handler.reply("no", status=418)

    server = serve(answer)
    assert outbound.request("POST", f"{server.url}/hook", {"X-Signature": "s"}, b"{}", max_bytes=2) == (418, b"no")
    ((path, headers),) = server.asked
    assert (path, headers["X-Signature"], received) == ("/hook", "s", [b"{}"])


def test_a_body_beyond_its_bound_is_an_error(serve: Serve, outbound: Outbound) -> None:
    with pytest.raises(OutboundError, match="larger than 3 bytes"):
        outbound.request("GET", serve([1, 2]).url, NOTHING, max_bytes=3)


def test_a_post_sent_on_by_a_redirect_stays_a_post_without_its_authorization(serve: Serve, outbound: Outbound) -> None:
    """And none is followed unless that was asked for."""
    received: list[tuple[str, bytes]] = []

    def answer(handler: Handler) -> None:
        received.append((handler.command, handler.body))
        handler.reply("ok")

    far = serve(answer)
    near = serve(lambda handler: handler.reply("", status=307, Location=far.url))
    following, headers = replace(outbound, redirects=1), {"Authorization": "Bearer x", "X-Kept": "1"}
    assert following.request("POST", near.url, headers, b"body", max_bytes=9) == (200, b"ok")
    assert received == [("POST", b"body")]
    assert (near.asked[0][1]["Authorization"], far.asked[0][1]["X-Kept"]) == ("Bearer x", "1")
    assert "Authorization" not in far.asked[0][1]
    with pytest.raises(OutboundError, match="redirects more than 0 times"):
        outbound.request("POST", near.url, headers, b"body", max_bytes=9)


def test_tls_verification_is_the_settings(outbound: Outbound) -> None:
    assert outbound.tls.verify_mode is ssl.CERT_REQUIRED
    assert tls_context(False).verify_mode is ssl.CERT_NONE
