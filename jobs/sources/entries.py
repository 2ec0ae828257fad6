"""Entries of a site list as text, CSV or JSON, read with memory bounded by the longest entry allowed.

What is wrong with them is told without secrets, and in bounded memory, too.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Literal, TextIO

from jobs.errors import SourceError
from jobs.plain_text import plain
from jobs.sites import NEVER, BadUrl, Site, id_from_url, normalise_url

Kind = Literal["txt", "csv", "json"]
Entry = tuple[str, object]  # `line N` or `entry N`, and its fields or a BadEntry
# What `wp site list` prints for a site that is served (CONTRACT section 5).
FLAGS = {"public": 1, "archived": 0, "deleted": 0, "spam": 0}
LATEST = 10**11  # Unix seconds; what is behind, from the year 5138 on, never comes, and soon has no date
MAX_ENTRY = 64 * 1024  # characters
_NOT_UTF8 = re.compile(r"[\udc80-\udcff]")  # what surrogateescape makes of such bytes
_BEGIN = re.compile(r"\s*\[\s*(\])?")
_MARK = re.compile(r"\s*([,\]])\s*")
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_KEPT = 100  # problems
_CREDENTIALS = re.compile(r"^([a-z][a-z0-9+.-]*:/*)?.*@", re.IGNORECASE | re.DOTALL)


class BadEntry(SourceError):
    """An entry that is no site; the text says why, without secrets."""


def read_entries(handle: IO[bytes], kind: Kind, name: str) -> Iterator[Entry]:
    """The entries of `handle`. `name`: what errors call it. Raises SourceError where entries cannot be told apart."""
    with io.TextIOWrapper(handle, "utf-8-sig", "surrogateescape", newline="\n") as text:
        yield from _array(text, name) if kind == "json" else _lines(text, kind, name)


def site_of(entry: object, *, dated: bool = False) -> Site | str:
    """The site of an entry, or the one of FLAGS that leaves it out; its `next_due` if `dated`. Raises BadEntry."""
    if isinstance(entry, BadEntry):
        raise entry
    if not isinstance(entry, Mapping):
        raise BadEntry("is not an object")
    for name, served in FLAGS.items():
        if (value := entry.get(name, "")) not in ("", None) and integer(name, value) != served:
            return name
    url = entry.get("siteurl") or entry.get("url")
    if not url or not isinstance(url, str):
        raise BadEntry("has no url")
    try:
        url = normalise_url(url)
    except BadUrl as error:
        raise BadEntry("is not UTF-8" if _NOT_UTF8.search(url) else f"{masked(url)} {error}") from None
    given = next((entry[column] for column in ("blog_id", "id") if entry.get(column) not in ("", None)), None)
    if given is None:
        return Site(id_from_url(url), url)
    if (number := integer("id", given)) < 1:
        raise BadEntry(f"id is {number}, not a positive number")
    return Site(str(number), url, due_of(entry["next_due"]) if dated and "next_due" in entry else None)


def due_of(value: object) -> int:
    """A feed's `next_due`, Unix seconds or null, as Site.due. Raises BadEntry."""
    due = NEVER if value is None else max(integer("next_due", value), 0)
    return due if due < LATEST else NEVER


def integer(name: str, value: object) -> int:
    """Of `1`, `"1"` or `true`; some plugins store -1 and less in `public`. Raises BadEntry."""
    text = str(int(value)) if isinstance(value, bool) else str(value).strip() if isinstance(value, int | str) else ""
    if not _INTEGER.fullmatch(text):
        raise BadEntry(f'{name} is "{plain(str(value), 40)}", not a number')
    return int(text)


def _lines(text: TextIO, kind: Kind, name: str) -> Iterator[Entry]:
    """One line is one row, so that a stray quote spoils its own line and swallows no other."""
    header, number = ["url"] if kind == "txt" else [], 0
    while line := text.readline(MAX_ENTRY):
        number += 1
        where = f"line {number}"
        if len(line) == MAX_ENTRY and not line.endswith("\n"):
            while line and not line.endswith("\n"):
                line = text.readline(MAX_ENTRY)
            yield where, BadEntry(f"is longer than {MAX_ENTRY - 1} characters")
            continue
        if not (line := line.strip()) or line.startswith("#"):
            continue
        try:
            row = [line] if kind == "txt" else next(csv.reader([line], strict=True))
        except csv.Error as error:
            yield where, BadEntry(f"is not CSV ({error})")
            continue
        if header:
            wrong = BadEntry(f"has {len(row)} columns, the first line {len(header)}")
            yield where, dict(zip(header, row, strict=True)) if len(row) == len(header) else wrong
            continue
        header = [cell.strip().lower() for cell in row]
        if "url" not in header and "siteurl" not in header:
            raise SourceError(f'{name} {where}: must name the columns, one of them "url" or "siteurl"')


def _array(text: TextIO, name: str) -> Iterator[Entry]:
    """Decoded one by one from a buffer that has MAX_ENTRY characters ahead, while there are as many."""
    decode, buffer, count = json.JSONDecoder().raw_decode, text.read(MAX_ENTRY), 0
    if not buffer.strip():
        return
    if not (begin := _BEGIN.match(buffer)):
        raise SourceError(f"{name}: is not a JSON array as `wp site list --format=json` prints it: {plain(buffer, 80)}")
    at, closed = begin.end(), begin[1] is not None
    while not closed:
        if len(buffer) - at < MAX_ENTRY:
            buffer, at = buffer[at:] + text.read(MAX_ENTRY), 0
        count, mark = count + 1, None
        with suppress(ValueError, RecursionError):
            entry, at = decode(buffer, at)
            mark = _MARK.match(buffer, at)
        if not mark:
            raise SourceError(f"{name} entry {count}: is not JSON, is cut off, or is over {MAX_ENTRY} characters")
        yield f"entry {count}", entry
        at, closed = mark.end(), mark[1] == "]"
    if rest := (buffer[at:] + text.read(MAX_ENTRY)).strip():
        raise SourceError(f"{name}: has something behind the end of its array: {plain(rest, 80)}")


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
