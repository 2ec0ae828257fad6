"""Authentication: who calls, and may they (CONTRACT section 3)."""

import hmac
import ipaddress
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import HTTPConnection

from jobs import filters, keys
from jobs.errors import SettingsError
from jobs.settings import Networks, Settings, Token
from service.answers import RestError

MOST_WRONG_TOKENS = 10  # a minute, from one address
Scope = Literal["run", "read"]


def require_token(settings: Settings) -> bool:
    """Whether callers must show a token; raises SettingsError if none is set: the web process does not start then."""
    required = filters.auth_required(settings)
    if required and not settings.tokens:
        raise SettingsError(
            "ALL_SITES_CRON_AUTH_TOKEN is not set: anybody could start runs. Set it, "
            "or say ALL_SITES_CRON_REQUIRE_AUTH=false where only trusted callers can connect."
        )
    return required


async def authenticate(request: HTTPConnection, parameter: str, scope: Scope, settings: Settings, redis: Redis) -> str:
    """The name of the caller's token, or `anonymous` where none is required; raises RestError.

    The token is the Authorization header's, else the parameter's: a wrong header beats a right parameter. Without
    either, whoever is signed in on the page (console.session) may read by GET, and do nothing else.
    """
    if not filters.auth_required(settings):
        return "anonymous"
    if not settings.tokens:
        message = "Authentication is required, but no token is configured."
        raise RestError(500, "all_sites_cron_auth_not_configured", message)
    headers = [value for name, value in request.headers.raw if name == b"authorization"]
    shown = [value[7:] for value in headers if value[:7].lower() == b"bearer "]
    token = (shown[0] if shown else parameter.encode("utf-8", "surrogateescape")).strip()
    may_sign_in = not token and scope == "read" and request.scope["method"] in ("GET", "HEAD")
    if may_sign_in and (name := request.app.state.signed_in(request)):
        return str(name)
    if not token:
        message = "A token is required: send Authorization: Bearer TOKEN."
        raise RestError(401, "all_sites_cron_auth_missing", message, {"WWW-Authenticate": "Bearer"})
    matched = matching(token, settings.tokens)
    if matched is None:
        await _count_wrong(client_address(request, settings.trusted_proxies), redis)
        raise RestError(403, "all_sites_cron_auth_invalid", "The token is not valid.")
    if scope == "run" and matched.scope != "run":
        message = f"The token {matched.name!r} may read, but not start runs."
        raise RestError(403, "all_sites_cron_auth_invalid", message)
    return matched.name


def matching(shown: bytes, tokens: Sequence[Token]) -> Token | None:
    """In constant time whichever token it is: every one is compared, on digests."""
    digest = sha256(shown).digest()
    matched = None
    for token in tokens:
        secret = token.secret.get_secret_value().encode("utf-8", "surrogateescape").strip()
        if hmac.compare_digest(digest, sha256(secret).digest()):
            matched = token
    return matched


async def _count_wrong(address: str, redis: Redis) -> None:
    key = keys.wrong_tokens(address)
    pipeline = redis.pipeline()
    pipeline.set(key, 0, ex=60, nx=True)
    pipeline.incr(key)
    pipeline.ttl(key)
    try:
        _, wrong, left = await pipeline.execute()
    except RedisError:
        return  # the token is wrong all the same, and the caller is told so
    if wrong > MOST_WRONG_TOKENS:
        wait = str(max(1, left))
        message = f"Too many wrong tokens. Try again in {wait} seconds."
        raise RestError(429, "all_sites_cron_auth_rate_limited", message, {"Retry-After": wait})


def client_address(request: HTTPConnection, trusted: Networks) -> str:
    """The rightmost hop that is not a trusted proxy (RFC 7239 §5.2's order, as in X-Forwarded-For)."""
    peer = request.client.host if request.client else "unknown"
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()] + [peer]
    for hop in reversed(hops):
        try:
            address = parsed(hop)
        except ValueError:
            return hop[:64]
        if not any(address in network for network in trusted):
            return str(address)
    return hops[0]


def parsed(hop: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address; an IPv4 one also as a dual-stack socket shows it. Raises ValueError."""
    address = ipaddress.ip_address(hop)
    return getattr(address, "ipv4_mapped", None) or address
