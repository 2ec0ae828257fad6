"""A site: one address whose wp-cron.php is called."""

import hashlib
import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import idna

NEVER = 2**53  # the due time of a site that has nothing scheduled; what JSON and Lua still keep exactly
_MAX_URL = 2000
# urlsplit drops what stands before or behind a bracketed address; only a netloc of this shape is taken.
_NETLOC = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]@:]+))(?::\d*)?")


@dataclass(frozen=True, slots=True)
class Site:
    """One public site of the network.

    `id`: WordPress's blog_id in decimal digits; `u-` and 12 hex digits of the URL's SHA-256 where the source has none.
    `url`: its siteurl as `normalise_url` leaves it, the address `/wp-cron.php` is appended to.
    `due`: Unix seconds of its next cron event, NEVER where nothing is scheduled; None when the source cannot tell.
    """

    id: str
    url: str
    due: int | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """What the site is ordered and walked by: the id, zero-padded to sort as a number, or the URL."""
        return self.url if self.id.startswith("u-") else self.id.zfill(20)


class BadUrl(ValueError):
    """A URL that no trigger may be sent to; the text says why, without repeating credentials."""


def id_from_url(url: str) -> str:
    """The id of a site whose source knows none (CONTRACT section 5)."""
    return "u-" + hashlib.sha256(url.encode()).hexdigest()[:12]


def normalise_url(text: str) -> str:
    """`scheme://host[:port][/path]`: lower-case, IDNA-encoded, without a trailing slash, query, default port.

    Raises BadUrl for anything but a plain http(s) address: other schemes, credentials, control
    characters, a query or fragment, a host that is no name.
    """
    text = text.strip(" \t")
    if len(text) > _MAX_URL:
        raise BadUrl(f"longer than {_MAX_URL} characters")
    if any(ord(c) < 0x21 or ord(c) == 0x7F for c in text):
        raise BadUrl("contains white space or a control character")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # its text may repeat a password
        raise BadUrl("is not a URL (its host or port is malformed)") from None
    if parts.scheme not in ("http", "https"):
        raise BadUrl("must start with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise BadUrl("contains a user name or password; send them with the filter all_sites_cron_request_args")
    if parts.query or parts.fragment:
        raise BadUrl("has a query or a fragment; give the site's address alone")
    if port == 0:
        raise BadUrl("has port 0")
    host = _host(parts.netloc)
    default = {"http": 80, "https": 443}[parts.scheme]
    path = parts.path.rstrip("/")
    if not path.isascii():
        raise BadUrl("has a path that is not percent-encoded")
    if any(c in path for c in '\\"<>^`{|}'):
        raise BadUrl("has a character in its path that a URL may not have")
    return f"{parts.scheme}://{host}{f':{port}' if port not in (None, default) else ''}{path}"


def host_and_port(url: str) -> tuple[str, int]:
    """What a site's address connects to."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _host(netloc: str) -> str:
    if not (match := _NETLOC.fullmatch(netloc)):
        raise BadUrl("has no host name" if not netloc.partition(":")[0] else "has a host name that cannot exist")
    name = match["name"]
    try:
        if name is None:
            return f"[{ipaddress.IPv6Address(match['ipv6'])}]"
        return idna.encode(name, uts46=True).decode() if not name.isascii() else _ascii_host(name)
    except (ipaddress.AddressValueError, UnicodeError) as error:  # idna's errors are UnicodeErrors
        raise BadUrl(f"has a host name that cannot exist ({error})") from None


def _ascii_host(name: str) -> str:
    """Real networks have underscores in names, which IDNA forbids and DNS and WordPress allow."""
    name = name.lower()
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(0 < len(label) <= 63 for label in labels):
        raise BadUrl("has a host name that cannot exist (empty or too long label)")
    if not all(c.isalnum() or c in "-_" for label in labels for c in label):
        raise BadUrl("has a host name with a character that no name has")
    return name
