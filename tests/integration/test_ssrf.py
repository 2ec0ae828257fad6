"""No site list, feed or redirect steers the service to an address inside, however it is spelled or looked up."""

import ipaddress
import socket
from dataclasses import dataclass, field
from typing import Any

import pytest

from jobs.addresses import AddressGuard
from jobs.errors import OutboundError
from jobs.outbound import Outbound, tls_context
from jobs.world import build
from tests.integration.odd_servers import OK, Names, certificate, redirecting, serving, walked
from tests.integration.stack import Stack, environ_of

METADATA = "169.254.169.254"
SPELLINGS = {
    "127.0.0.1": "127.0.0.1 127.1 0x7f.1 0x7f000001 2130706433 0177.0.0.1 017700000001 [::ffff:127.0.0.1] "
    "[::ffff:7f00:1] [64:ff9b::7f00:1] [2002:7f00:1::]",
    METADATA: "169.254.169.254 0xA9FEA9FE 2852039166 0251.0376.0251.0376 169.254.43518 [::ffff:a9fe:a9fe] "
    "[64:ff9b::169.254.169.254] [2002:a9fe:a9fe::1]",
    "0.0.0.0": "0.0.0.0 0 0x0 [::ffff:0:0]",
    "10.0.0.1": "10.0.0.1 10.1 0xa.1 [::ffff:a00:1] [64:ff9b::a00:1] [2002:a00:1::]",
    "::": "[::]",
    "::1": "[::1] [0:0::1]",
    "::7f00:1": "[::127.0.0.1]",
    "::ffff:0:7f00:1": "[::ffff:0:127.0.0.1]",
    "2001:0:7f00:1::": "[2001:0:7f00:1::]",
    "64:ff9b:1::7f00:1": "[64:ff9b:1::7f00:1]",
    "fd00::1": "[fd00::1]",
    "fe80::1": "[fe80::1]",
}
HOSTS = [(host, f"{ip}/{128 if ':' in ip else 32}") for ip, hosts in SPELLINGS.items() for host in hosts.split()]


@dataclass
class Rebinding(Names):
    """A `getaddrinfo` that gives a name another address each time, the last one for ever."""

    ips: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int, **_: object) -> list[Any]:
        self.asked.append(host)
        ip = self.ips.pop(0) if len(self.ips) > 1 else self.ips[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port or 0))]


def test_a_site_with_an_address_inside_is_blocked_in_any_spelling(stack: Stack) -> None:
    """Each is told the ALLOWED_NETWORKS of the address it leads to, and nothing is sent."""
    with serving(OK) as inside:
        path = stack.folder / "sites.txt"
        path.write_text("".join(f"http://{host}:{inside.port}/s{n}\n" for n, (host, _) in enumerate(HOSTS)))
        run = walked(build(environ_of(stack, sites=path, allowed_networks="127.0.0.9/32", origin_concurrency=50)))
    assert (run.count, run.bad_entries, inside.heads) == (len(HOSTS), 0, [])
    told = {int(failure.url.rpartition("/s")[2]): (failure.reason, failure.detail) for failure in run.failures}
    for number, (_, allow) in enumerate(HOSTS):
        assert told[number][0] == "blocked"
        assert f"ALL_SITES_CRON_ALLOWED_NETWORKS={allow} " in told[number][1]


@pytest.fixture(scope="module")
def outbound() -> Outbound:
    """What feeds and webhooks are asked with; only 127.0.0.9 may be called."""
    return Outbound(AddressGuard([ipaddress.ip_network("127.0.0.9")]), tls_context(True), deadline=10, redirects=3)


@pytest.mark.parametrize(("host", "allow"), HOSTS)
def test_a_feed_or_a_redirect_of_it_to_an_address_inside_is_refused(outbound: Outbound, host: str, allow: str) -> None:
    with serving(OK) as inside, serving(redirecting(f"http://{host}:{inside.port}/"), "127.0.0.9") as outside:
        for url in (f"http://{host}:{inside.port}/", outside.url):
            with pytest.raises(OutboundError, match=f"ALL_SITES_CRON_ALLOWED_NETWORKS={allow} |Invalid IPv4 address"):
                outbound.request("GET", url, {}, max_bytes=100)
        assert (len(outside.heads), inside.heads) == (1, [])


def test_a_site_whose_name_changes_after_the_check_is_called_where_it_was_checked(stack: Stack) -> None:
    """DNS rebinding: the address that was judged is the one connected to; the name is not looked up again."""
    with serving(OK, "127.0.0.9") as outside, serving(OK, "127.0.0.1", port=outside.port) as inside:
        path = stack.folder / "sites.txt"
        path.write_text(f"http://rebinding.example:{outside.port}/\n")
        names = Rebinding(ips=["127.0.0.9", "127.0.0.1"])
        run = walked(build(environ_of(stack, sites=path, allowed_networks="127.0.0.9/32")), names)
    assert (run.status, len(outside.heads), inside.heads, len(names.asked)) == ("succeeded", 1, [], 1)


def test_a_site_whose_name_changes_before_its_redirect_is_judged_again(stack: Stack) -> None:
    """The redirect to https leads to a port of its own, whose address is looked up and checked by itself."""
    context, authority = certificate(stack.folder, "rebinding.example")
    with serving(OK, "127.0.0.1", context) as inside:
        target = f"https://rebinding.example:{inside.port}/wp-cron.php?doing_wp_cron"
        with serving(redirecting(target), "127.0.0.9") as outside:
            path = stack.folder / "sites.txt"
            path.write_text(f"http://rebinding.example:{outside.port}/\n")
            names = Rebinding(ips=["127.0.0.9", "127.0.0.1"])
            settings = {"sites": path, "allowed_networks": "127.0.0.9/32", "ssl_verify": authority}
            run = walked(build(environ_of(stack, **settings)), names)
    assert ([failure.reason for failure in run.failures], len(outside.heads)) == (["blocked"], 1)
    assert inside.heads == []


def test_a_feed_whose_name_changes_is_asked_where_it_was_checked_and_its_redirect_is_judged_again(
    outbound: Outbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for feeds and webhooks."""
    real, names = socket.getaddrinfo, Rebinding(ips=["127.0.0.9", "127.0.0.1"])

    def look_up(host: str, port: int | None, *args: Any, **more: Any) -> Any:
        return names(host, port or 0) if host == "rebinding.example" else real(host, port, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with serving(redirecting("/again"), "127.0.0.9") as outside, serving(OK, port=outside.port) as inside:
        with pytest.raises(OutboundError, match=r"rebinding.*ALLOWED_NETWORKS=127\.0\.0\.1/32"):
            outbound.request("GET", f"http://rebinding.example:{outside.port}/", {}, max_bytes=100)
        assert (len(outside.heads), inside.heads) == (1, [])
