"""Who is signed in: a cookie that proves a token without holding it, and that nothing is kept of (SECURITY.md).

Its value is `expiry.seed.mac`; the mac (HMAC-SHA256 over token name, expiry and seed) is keyed by a digest of the token
itself, so that it ends with the token. Where no token is required everybody has one, for the forms alone.
"""

import hmac
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from jobs import filters
from jobs.settings import Settings
from service.answers import RestError
from service.auth import Scope, authenticate, parsed
from service.web import Web

SECONDS = 12 * 3600
COOKIE = "all_sites_cron"
_VALUE = re.compile("([0-9]{1,12})[.]([0-9a-f]{32})[.]([0-9a-f]{64})")


@dataclass(frozen=True)
class Session:
    """`name`: of the token. `expires`: Unix seconds. `seed`: what makes it another one than the last."""

    name: str
    scope: Scope
    expires: int
    seed: str
    key: bytes = field(repr=False)

    @property
    def value(self) -> str:
        """What the cookie holds."""
        return f"{self.expires}.{self.seed}.{self._mac('session')}"

    @property
    def csrf(self) -> str:
        """What a form of this session has to send along."""
        return self._mac("form")

    def _mac(self, purpose: str) -> str:
        text = "\0".join((purpose, self.name, str(self.expires), self.seed))
        return hmac.new(self.key, text.encode("utf-8", "surrogateescape"), sha256).hexdigest()


def begin(name: str, scope: Scope, token: str) -> Session:
    """A new session for the owner of a token."""
    return Session(name, scope, int(time.time()) + SECONDS, secrets.token_hex(16), _key(token))


def anonymous() -> Session:
    """A new session where no token is required."""
    return begin("anonymous", "run", "")


def _key(token: str) -> bytes:
    return sha256(b"all_sites_cron session\0" + token.encode("utf-8", "surrogateescape")).digest()


def read(request: HTTPConnection) -> Session | None:
    """The session that a request's cookie proves."""
    settings = _settings(request)
    found = _VALUE.fullmatch(request.cookies.get(_cookie(request, settings), ""))
    if not found or int(found[1]) < time.time():
        return None
    tokens: list[tuple[str, Scope, str]] = [("anonymous", "run", "")]
    if filters.auth_required(settings):
        tokens = [(token.name, token.scope, token.secret.get_secret_value()) for token in settings.tokens]
    sessions = (Session(name, scope, int(found[1]), found[2], _key(token)) for name, scope, token in tokens)
    return next((session for session in sessions if hmac.compare_digest(session.value, found[0])), None)


def reader(request: HTTPConnection) -> str | None:
    """The name of whoever is signed in; the plug of service.auth, which lets them read."""
    session = read(request)
    return session.name if session else None


async def caller(request: Request, scope: Scope) -> str:
    """The name of whoever is signed in, or whose token is in the header; raises RestError, 401: let them sign in."""
    if (session := read(request)) and (scope == "read" or session.scope == "run"):
        return session.name
    if session:
        message = f"The token {session.name!r} may read, but not start or cancel runs."
        raise RestError(403, "all_sites_cron_auth_invalid", message)
    web: Web = request.app.state.web
    return await authenticate(request, "", scope, web.settings, web.redis)


def keep(response: Response, request: HTTPConnection, session: Session | None) -> None:
    """Set the cookie, or take it away."""
    settings, age = _settings(request), session.expires - int(time.time()) if session else 0
    secure, value = _is_https(request, settings), session.value if session else ""
    response.set_cookie(_cookie(request, settings), value, max_age=age, httponly=True, secure=secure, samesite="strict")


def check_origin(request: Request) -> None:
    """Refuse what another site sent; raises RestError. The browser's word first: a proxy may change Host."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin", "null")
    foreign = site not in ("same-origin", "none") if site else _differs(origin, request.headers.get("host", ""))
    if foreign:
        raise RestError(403, "all_sites_cron_foreign_form", "This form came from another site; nothing was done.")


def _differs(origin: str, host: str) -> bool:
    return origin != "null" and urlsplit(origin).netloc.lower() != host.lower()  # null: Referrer-Policy: no-referrer


def check_form(request: Request, sent: str) -> None:
    """Refuse a POST that no form of this session made; raises RestError."""
    check_origin(request)
    session = read(request)
    if session is None or not hmac.compare_digest(session.csrf.encode(), sent.encode("utf-8", "replace")):
        message = "This form is too old, or cookies are off. Nothing was done: go back, reload the page, try again."
        raise RestError(403, "all_sites_cron_form_expired", message)


def _settings(request: HTTPConnection) -> Settings:
    web: Web = request.app.state.web
    return web.settings


def _cookie(request: HTTPConnection, settings: Settings) -> str:
    """Its name; browsers let no other host and no plain http set one with this prefix (RFC 6265bis §4.1.3.2)."""
    return f"__Host-{COOKIE}" if _is_https(request, settings) else COOKIE


def _is_https(request: HTTPConnection, settings: Settings) -> bool:
    """Whether the caller's own connection has TLS; X-Forwarded-Proto is a trusted proxy's word only."""
    said = ",".join(request.headers.getlist("x-forwarded-proto")).rpartition(",")[2].strip().lower()
    with suppress(ValueError):  # a Unix socket's peer has no address
        peer = parsed(request.client.host if request.client else "")
        if said and any(peer in network for network in settings.trusted_proxies):
            return said == "https"
    return request.url.scheme == "https"
