"""What a caller asked for: query, and as WordPress does, the body of a POST (CONTRACT section 1)."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from jobs.settings import BOOLEAN_WORDS, boolean
from service.answers import RestError
from service.openapi import declared

MOST_BODY = 65_536  # bytes
BODY_SECONDS = 10.0  # for all of it


def bad(name: str, allowed: str) -> RestError:
    """A parameter has a value it cannot have."""
    params = {name: f"{name} must be {allowed}."}
    return RestError(400, "rest_invalid_param", f"Invalid parameter(s): {name}", params=params)


def form(text: bytes) -> dict[str, str]:
    """Every parameter of a query or a form by name; the last of several wins."""
    return dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"))


async def sent(request: Request) -> dict[str, str]:
    """Every parameter in the body of a POST by name."""
    body = b""
    if request.method == "POST":
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > MOST_BODY:
                        raise RestError(413, "rest_body_too_large", "The body of the request is larger than 64 KiB.")
        except TimeoutError:
            message = f"The body of the request did not come within {BODY_SECONDS:g} s."
            raise RestError(408, "rest_request_timeout", message) from None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return form(body)
    if kind == "application/json" and body.strip():
        try:
            values = json.loads(body)
        except (ValueError, RecursionError):
            raise bad("the body", "JSON, as its Content-Type says") from None
        if isinstance(values, dict):
            return {name: _as_text(value) for name, value in values.items()}
    return {}


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    text = "" if value is None else str(value)
    return text.encode("utf-8", "replace").decode()  # JSON may hold half a surrogate pair


def read(values: Mapping[str, str], name: str) -> Any:
    """A parameter of the query, as service/openapi.json declares it: a number, one of some words, or a boolean.

    Absent and empty are the default where it has one.
    """
    schema = declared()["components"]["parameters"][name]["schema"]
    text = values.get(name) or str(schema.get("default", ""))
    match schema:
        case {"minimum": least, "maximum": most}:
            if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
                raise bad(name, f"a whole number from {least} to {most}")
            return int(text)
        case {"enum": words}:
            if text not in words:
                raise bad(name, f"one of {', '.join(words)}")
            return text
    return flag(values, name)


def flag(values: Mapping[str, str], name: str) -> bool:
    """A boolean parameter; absent and empty are false."""
    try:
        return boolean(values.get(name) or "0")
    except ValueError:
        raise bad(name, BOOLEAN_WORDS) from None


def wants_text(values: Mapping[str, str]) -> bool:
    """Whether the answer is to be GitHub Actions text; a caller whose `ga` is no boolean is told so in JSON."""
    with suppress(RestError):
        return flag(values, "ga")
    return False
