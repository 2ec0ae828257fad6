"""Authentication: who calls, and may they (CONTRACT section 3)."""

import hmac
import ipaddress
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import HTTPConnection

from jobs import keys
from jobs.settings import Networks, Settings, Token

MOST_WRONG_TOKENS = 10  # a minute, from one address
Scope = Literal["run", "read"]


class AuthError(Exception):
    """The caller is not let in. `code`: as WordPress's REST API names it. `headers`: for the answer."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, f"all_sites_cron_auth_{code}", headers or {}


async def authenticate(
    request: HTTPConnection, token: bytes | None, scope: Scope, settings: Settings, redis: Redis
) -> str:
    """The name of the caller's token, or `anonymous` where none is required; raises AuthError."""
    if not settings.auth_required:
        return "anonymous"
    if not settings.tokens:
        raise AuthError(500, "not_configured", "Authentication is required, but no token is configured.")
    shown = _shown(request, token)
    if shown is None:
        header = {"WWW-Authenticate": "Bearer"}
        raise AuthError(401, "missing", "A token is required: send Authorization: Bearer TOKEN.", header)
    matched = _match(shown, settings.tokens)
    if matched is None:
        await _count_wrong(client_address(request, settings.trusted_proxies), redis)
        raise AuthError(403, "invalid", "The token is not valid.")
    if scope == "run" and matched.scope != "run":
        raise AuthError(403, "invalid", f"The token {matched.name!r} may read, but not start runs.")
    return matched.name


def _shown(request: HTTPConnection, token: bytes | None) -> bytes | None:
    """The token of the Authorization header, else the parameter's; a wrong header beats a right parameter."""
    for name, value in request.headers.raw:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
    return token or None


def _match(shown: bytes, tokens: Sequence[Token]) -> Token | None:
    """In constant time whichever token it is: every one is compared, on digests."""
    digest = sha256(shown).digest()
    matched = None
    for token in tokens:
        secret = token.secret.get_secret_value().encode("utf-8", "surrogateescape")
        if hmac.compare_digest(digest, sha256(secret).digest()):
            matched = token
    return matched


async def _count_wrong(address: str, redis: Redis) -> None:
    key = keys.wrong_tokens(address)
    try:
        pipeline = redis.pipeline()
        pipeline.set(key, 0, ex=60, nx=True)
        pipeline.incr(key)
        pipeline.ttl(key)
        _, wrong, left = await pipeline.execute()
    except RedisError:
        return  # the token is wrong all the same, and the caller is told so
    if wrong > MOST_WRONG_TOKENS:
        wait = {"Retry-After": str(max(1, left))}
        raise AuthError(429, "rate_limited", f"Too many wrong tokens. Try again in {max(1, left)} seconds.", wait)


def client_address(request: HTTPConnection, trusted: Networks) -> str:
    """The rightmost hop that is not a trusted proxy (RFC 7239 §5.2's order, as in X-Forwarded-For)."""
    peer = request.client.host if request.client else "unknown"
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()] + [peer]
    for hop in reversed(hops):
        try:
            address = ipaddress.ip_address(hop)
        except ValueError:
            return hop[:64]
        address = getattr(address, "ipv4_mapped", None) or address  # how a dual-stack socket shows IPv4
        if not any(address in network for network in trusted):
            return str(address)
    return hops[0]
