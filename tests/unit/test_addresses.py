"""The SSRF guard: which addresses a trigger may reach."""

import pytest

from jobs.addresses import AddressGuard, parse_networks


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07::1", "::ffff:8.8.8.8"])
def test_global_unicast_passes(address: str) -> None:
    """A site on the public internet needs no setting."""
    assert AddressGuard().refusal(address) is None


@pytest.mark.parametrize(
    ("address", "allow"),
    [
        ("169.254.169.254", "169.254.169.254/32"),
        ("127.0.0.1", "127.0.0.1/32"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("172.16.0.1", "172.16.0.1/32"),
        ("192.168.1.1", "192.168.1.1/32"),
        ("100.64.0.1", "100.64.0.1/32"),
        ("0.0.0.0", "0.0.0.0/32"),
        ("224.0.0.1", "224.0.0.1/32"),
        ("255.255.255.255", "255.255.255.255/32"),
        ("240.0.0.1", "240.0.0.1/32"),
        ("::1", "::1/128"),
        ("::", "::/128"),
        ("fd00::1", "fd00::1/128"),
        ("fe80::1%eth0", "fe80::1/128"),
        ("fec0::1", "fec0::1/128"),
        ("ff0e::1", "ff0e::1/128"),
        ("::7f00:1", "::7f00:1/128"),
        ("64:ff9b:1::7f00:1", "64:ff9b:1::7f00:1/128"),
        ("2001:db8::1", "2001:db8::1/128"),
    ],
)
def test_everything_else_is_refused_by_the_network_that_would_allow_it(address: str, allow: str) -> None:
    """Private, loopback, link-local, shared, multicast, reserved and documentation addresses name their own CIDR."""
    assert AddressGuard().refusal(address) == allow
    assert AddressGuard(parse_networks(allow)).refusal(address) is None


@pytest.mark.parametrize(
    "address", ["::ffff:127.0.0.1", "::ffff:7f00:1", "2002:7f00:1::", "64:ff9b::127.0.0.1", "64:ff9b::7f00:1"]
)
def test_an_ipv4_address_inside_an_ipv6_one_decides(address: str) -> None:
    """IPv4-mapped, 6to4 and NAT64 addresses are what they lead to."""
    assert AddressGuard().refusal(address) == "127.0.0.1/32"
    assert AddressGuard(parse_networks("127.0.0.0/8")).refusal(address) is None


def test_allowed_networks_lift_only_themselves() -> None:
    """A private network that is allowed leaves the others refused."""
    guard = AddressGuard(parse_networks("10.0.0.0/8, fd00::/8"))
    assert guard.refusal("10.255.0.1") is None
    assert guard.refusal("fd12::1") is None
    assert guard.refusal("192.168.0.1") == "192.168.0.1/32"
    assert guard.refusal("fe80::1") == "fe80::1/128"


def test_a_name_is_no_address() -> None:
    """Nothing unresolved slips through as allowed."""
    with pytest.raises(ValueError, match="localhost"):
        AddressGuard().refusal("localhost")


def test_networks_are_separated_by_commas_or_spaces() -> None:
    """ALLOWED_NETWORKS takes CIDRs and single addresses; nothing at all is an empty list."""
    assert [str(n) for n in parse_networks(" 10.0.0.0/8,fd00::/8 ,, 127.0.0.1\n")] == [
        "10.0.0.0/8",
        "fd00::/8",
        "127.0.0.1/32",
    ]
    assert parse_networks(" ") == ()


@pytest.mark.parametrize("bad", ["10.0.0.1/8", "10.0.0.0/33", "intranet", "10.0.0.0/8/8"])
def test_a_bad_network_is_named(bad: str) -> None:
    """The entry that is wrong is in the message, not only the whole list."""
    with pytest.raises(ValueError, match=repr(bad)):
        parse_networks(f"127.0.0.0/8 {bad}")
