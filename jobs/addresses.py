"""Which resolved addresses a trigger may be sent to: the SSRF guard.

Site addresses are data that others write: a name may lead to cloud metadata at 169.254.169.254, a database on 10.0.0.3,
this machine. Judged is the address a connection really reaches, never the text of the URL.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # RFC 4291 section 2.4; ipaddress calls more than this global
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1


class AddressGuard:
    """Lets global unicast addresses pass, and those in `allowed` (the setting ALLOWED_NETWORKS)."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def refusal(self, address: str) -> str | None:
        """None if a trigger may be sent to this IP literal, else the ALLOWED_NETWORKS entry that would allow it alone.

        A scope id (`%eth0`) is ignored. Raises ValueError for anything but an IP literal.
        """
        ip = _reached(ip_address(address.partition("%")[0]))
        public = ip.is_global and not ip.is_multicast and (ip.version == 4 or ip in _GLOBAL_UNICAST)
        return None if public or any(ip in network for network in self._allowed) else f"{ip}/{ip.max_prefixlen}"


def refused(address: str, allow: str) -> str:
    """What a person can do about a refusal."""
    return f"{address} is not public; ALL_SITES_CRON_ALLOWED_NETWORKS={allow} would allow it"


def parse_networks(text: str) -> tuple[Network, ...]:
    """The networks of a list of CIDRs or addresses separated by commas or white space; ValueError names a bad entry."""
    networks: list[Network] = []
    for entry in text.replace(",", " ").split():
        try:
            networks.append(ip_network(entry))
        except ValueError as error:
            raise ValueError(f"{entry!r} is not a network such as 10.0.0.0/8 or fd00::/8 ({error})") from None
    return tuple(networks)


def _reached(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside an IPv4-mapped, 6to4 or NAT64 address: where its packets go. Else `ip` itself."""
    if isinstance(ip, IPv6Address):
        return IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour or ip
    return ip
