"""What a caller asked for: query, and as WordPress does, the body of a POST (CONTRACT section 1)."""

import json
from urllib.parse import parse_qsl

from starlette.requests import Request

from jobs.settings import BOOLEAN_WORDS, boolean

MOST_BODY = 65_536  # bytes


class BadParameter(Exception):
    """A parameter has a value it cannot have. `name`: which; the text says what is allowed."""

    def __init__(self, name: str, allowed: str) -> None:
        super().__init__(f"{name} must be {allowed}")
        self.name = name


class TooLarge(Exception):
    """The body of the request is larger than any this service has a use for."""


async def read(request: Request) -> dict[str, str]:
    """Every parameter by name; the body's win over the query's, the last of several wins. Raises TooLarge."""
    values = dict(
        parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
    )
    if request.method != "POST":
        return values
    body = await _body(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        values |= parse_qsl(body.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
    elif kind == "application/json" and body.strip():
        try:
            sent = json.loads(body)
        except ValueError:
            raise BadParameter("the body", "JSON, as its Content-Type says") from None
        if isinstance(sent, dict):
            values |= {name: _as_text(value) for name, value in sent.items()}
    return values


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            raise TooLarge
    return body


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return "" if value is None else str(value)


def flag(values: dict[str, str], name: str) -> bool:
    """A boolean parameter; absent and empty are false. Raises BadParameter."""
    text = values.get(name, "")
    try:
        return bool(text) and boolean(text)
    except ValueError:
        raise BadParameter(name, BOOLEAN_WORDS) from None
