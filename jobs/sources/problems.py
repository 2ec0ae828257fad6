"""What was wrong with the entries of a source, told without secrets and in bounded memory."""

import re
from typing import NamedTuple

from jobs.plain_text import plain

_KEPT = 100
_CREDENTIALS = re.compile(r"^([a-z][a-z0-9+.-]*:/*)?.*@", re.IGNORECASE | re.DOTALL)


class Problem(NamedTuple):
    """One bad entry. `where`: source and line or entry number. `text`: at most 200 printable characters."""

    where: str
    text: str


class Problems:
    """The bad entries seen so far: `count` of all, and the `first` 100 of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Problem] = []

    def add(self, where: str, text: str) -> None:
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append(Problem(where, plain(text)))


def masked(url: str) -> str:
    """`url` in quotes, short, without what may be secret in it: user name, password, query."""
    bare = _CREDENTIALS.sub(r"\1***@", url[:2000]).partition("?")[0]
    return f'"{plain(bare, 80)}"'
