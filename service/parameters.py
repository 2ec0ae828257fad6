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


async def read(request: Request) -> tuple[dict[str, str], BadParameter | TooLarge | None]:
    """Every parameter by name; the body's win over the query's, the last of several wins.

    What is wrong with the body is given back, not raised: who calls is asked first.
    """
    values = dict(
        parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
    )
    if request.method == "POST":
        try:
            values |= await _sent(request)
        except (BadParameter, TooLarge) as error:
            return values, error
    return values, None


async def _sent(request: Request) -> dict[str, str]:
    body = await _body(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"))
    if kind == "application/json" and body.strip():
        try:
            sent = json.loads(body)
        except (ValueError, RecursionError):
            raise BadParameter("the body", "JSON, as its Content-Type says") from None
        if isinstance(sent, dict):
            return {name: _as_text(value) for name, value in sent.items()}
    return {}


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
    text = "" if value is None else str(value)
    return text.encode("utf-8", "replace").decode()  # JSON may hold half a surrogate pair


def flag(values: dict[str, str], name: str) -> bool:
    """A boolean parameter; absent and empty are false. Raises BadParameter."""
    text = values.get(name, "")
    try:
        return bool(text) and boolean(text)
    except ValueError:
        raise BadParameter(name, BOOLEAN_WORDS) from None
