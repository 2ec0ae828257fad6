"""From whom a call comes: the rightmost hop that is not one of TRUSTED_PROXIES (CONTRACT section 3)."""

import pytest
from starlette.requests import HTTPConnection

from jobs.addresses import parse_networks
from service.auth import client_address

PRIVATE = "10.0.0.0/8, fd00::/8"


def address(peer: str | None, *forwarded: str, trusted: str = PRIVATE) -> str:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    client = (peer, 1234) if peer is not None else None
    request = HTTPConnection({"type": "http", "headers": headers, "client": client})
    return client_address(request, parse_networks(trusted))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.1.2.3", ["6.6.6.6", "198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.1.2.3", ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        ("10.1.2.3", [" , ,"], "10.1.2.3"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("fd00::1", ["2001:DB8:0::7"], "2001:db8::7"),
        ("::ffff:10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.1.2.3", ["198.51.100.1, garbage"], "garbage"),
        (None, ["198.51.100.1"], "unknown"),
    ],
)
def test_only_what_a_trusted_proxy_wrote_is_believed(peer: str | None, forwarded: list[str], client: str) -> None:
    """What stands to the left of the first untrusted hop is the caller's own invention."""
    assert address(peer, *forwarded) == client


def test_without_trusted_proxies_the_header_counts_for_nothing() -> None:
    """Else ten wrong tokens a minute would be ten for each address one can think of."""
    assert address("127.0.0.1", "1.2.3.4", trusted="") == "127.0.0.1"


def test_a_hop_that_is_no_address_is_cut() -> None:
    """It becomes part of a key in Redis."""
    assert address("10.1.2.3", "x" * 5000) == "x" * 64
