"""What was wrong with the entries of a source, told without secrets and in bounded memory."""

import re

from jobs.plain_text import plain

_KEPT = 100
_CREDENTIALS = re.compile(r"^([a-z][a-z0-9+.-]*:/*)?.*@", re.IGNORECASE | re.DOTALL)


class Problems:
    """The bad entries seen so far: `count` of all, and of the `first` 100 a line each."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, where: str, text: str) -> None:
        """`where`: source and line or entry number. Of `text` 200 printable characters are kept."""
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append(f"{where}: {plain(text)}")


def masked(url: str) -> str:
    """`url` in quotes, short, without what may be secret in it: user name, password, query."""
    bare = _CREDENTIALS.sub(r"\1***@", url[:2000]).partition("?")[0]
    return f'"{plain(bare, 80)}"'
