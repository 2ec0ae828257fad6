"""What was wrong with the entries of a source, told without secrets and in bounded memory."""

import re
from typing import NamedTuple

_KEPT = 100
_MAX_TEXT = 200
_CREDENTIALS = re.compile(r"^([a-z][a-z0-9+.-]*:/*)?.*@", re.IGNORECASE | re.DOTALL)


class Problem(NamedTuple):
    """One bad entry. `where`: source and line or entry number. `text`: at most 200 printable characters."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class Problems:
    """The bad entries seen so far: `count` of all, and the `first` 100 of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Problem] = []

    def add(self, where: str, text: str) -> None:
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append(Problem(where, printable(text, _MAX_TEXT)))


def printable(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, with `?` for each that a terminal or a log would act on."""
    safe = "".join(c if c.isprintable() else "?" for c in text[:limit])
    return safe if len(text) <= limit else safe[: limit - 1] + "…"


def masked(url: str) -> str:
    """`url` in quotes, short, without what may be secret in it: user name, password, query."""
    bare = _CREDENTIALS.sub(r"\1***@", url[:2000]).partition("?")[0]
    return f'"{printable(bare, 80)}"'
