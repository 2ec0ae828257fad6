"""Entries of a site list as text, CSV or JSON, read with memory bounded by the longest entry allowed."""

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping
from typing import IO, Literal

from jobs.errors import SourceError
from jobs.sites import BadUrl, Site, id_from_url, normalise_url
from jobs.sources.problems import masked, printable

Kind = Literal["txt", "csv", "json"]
# What `wp site list` prints for a site that is served (CONTRACT section 5).
FLAGS = {"public": 1, "archived": 0, "deleted": 0, "spam": 0}
MAX_ENTRY = 64 * 1024
_NOT_SPACE = re.compile(r"[^ \t\r\n]")
_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)


class BadEntry(ValueError):
    """An entry that is no site; the text says why, without secrets."""


def read_entries(handle: IO[bytes], kind: Kind, name: str) -> Iterator[tuple[str, object]]:
    """(`line N` or `entry N`, the fields or a BadEntry) of each entry of `handle`.

    Raises SourceError when what follows cannot be told apart into entries; `name` is how it calls the source.
    """
    return {"txt": _text, "csv": _csv, "json": _json}[kind](handle, name)


def site_of(entry: object) -> Site | None:
    """The site of an entry, None when its flags say that it is not public. Raises BadEntry."""
    if isinstance(entry, BadEntry):
        raise entry
    if not isinstance(entry, Mapping):
        raise BadEntry("is not an object")
    for name, served in FLAGS.items():
        if (value := entry.get(name, "")) not in ("", None) and integer(name, value) != served:
            return None
    url = entry.get("siteurl") or entry.get("url")
    if not url or not isinstance(url, str):
        raise BadEntry("has no url")
    try:
        url = normalise_url(url)
    except BadUrl as error:
        raise BadEntry(f"{masked(url)} {error}") from None
    given = next((entry[column] for column in ("blog_id", "id") if entry.get(column) not in ("", None)), None)
    if given is None:
        return Site(id_from_url(url), url)
    if (number := integer("id", given)) < 1:
        raise BadEntry(f"id is {number}, not a positive number")
    return Site(str(number), url)


def integer(name: str, value: object) -> int:
    """Of `1`, `"1"` or `true`; some plugins store -1 and less in `public`. Raises BadEntry."""
    text = str(int(value)) if isinstance(value, bool) else str(value).strip() if isinstance(value, int | str) else ""
    if not _INTEGER.fullmatch(text):
        raise BadEntry(f'{name} is "{printable(str(value), 40)}", not a number')
    return int(text)


def _lines(handle: IO[bytes]) -> Iterator[tuple[str, str | BadEntry]]:
    number = 0
    while raw := handle.readline(MAX_ENTRY + 1):
        number += 1
        if len(raw) > MAX_ENTRY:
            while raw and not raw.endswith(b"\n"):
                raw = handle.readline(MAX_ENTRY)
            yield f"line {number}", BadEntry(f"is longer than {MAX_ENTRY} bytes")
            continue
        try:
            text = raw.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode()
        except UnicodeDecodeError:
            yield f"line {number}", BadEntry("is not UTF-8")
        else:
            yield f"line {number}", text.removesuffix("\n").removesuffix("\r")


def _text(handle: IO[bytes], name: str) -> Iterator[tuple[str, object]]:
    for where, line in _lines(handle):
        if isinstance(line, BadEntry):
            yield where, line
        elif line.strip() and not line.lstrip().startswith("#"):
            yield where, {"url": line}


def _csv(handle: IO[bytes], name: str) -> Iterator[tuple[str, object]]:
    """One line is one row, so that a stray quote spoils its own line and swallows no other."""
    header: list[str] | None = None
    for where, line in _lines(handle):
        row = _row(line)
        if header is None:
            header = [] if isinstance(row, BadEntry) else [cell.strip().lower() for cell in row]
            if "url" not in header and "siteurl" not in header:
                raise SourceError(f'{name} {where}: must name the columns, one of them "url" or "siteurl"')
        elif isinstance(row, BadEntry):
            yield where, row
        elif len(row) == len(header):
            yield where, dict(zip(header, row, strict=True))
        elif row:
            yield where, BadEntry(f"has {len(row)} columns, the first line {len(header)}")


def _row(line: str | BadEntry) -> list[str] | BadEntry:
    if isinstance(line, BadEntry):
        return line
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        return BadEntry(f"is not CSV ({error})")


def _json(handle: IO[bytes], name: str) -> Iterator[tuple[str, object]]:
    text = _JsonText(handle, name)
    if not text.ahead():
        return
    if text.ahead() != "[":
        raise SourceError(f"{name}: is not a JSON array as `wp site list --format=json` prints it: {text.excerpt()}")
    text.at += 1
    closed = text.ahead() == "]"
    text.at += closed
    while not closed:
        value = text.value()
        yield f"entry {text.count}", value
        if (mark := text.ahead()) not in (",", "]"):
            raise SourceError(f"{name} entry {text.count}: is not followed by a comma or the end of the array")
        closed = mark == "]"
        text.at += 1
    if text.ahead():
        raise SourceError(f"{name}: has something behind the end of its array: {text.excerpt()}")


class _JsonText:
    """JSON values decoded one by one from a buffer of at most two reads. `at`: where the next begins."""

    def __init__(self, handle: IO[bytes], name: str) -> None:
        self._handle, self._name, self._buffer, self._end = handle, name, "", False
        self._decode, self._parse = codecs.getincrementaldecoder("utf-8-sig")().decode, json.JSONDecoder().raw_decode
        self.at = self.count = 0

    def ahead(self) -> str:
        """The next character that is not white space, "" at the end."""
        while not (found := _NOT_SPACE.search(self._buffer, self.at)):
            self.at = len(self._buffer)
            if not self._more():
                return ""
        self.at = found.start()
        return found[0]

    def excerpt(self) -> str:
        return printable(self._buffer[self.at : self.at + 80], 80)

    def value(self) -> object:
        self.count += 1
        self.ahead()
        while True:
            try:
                value, stop = self._parse(self._buffer, self.at)
            except (ValueError, RecursionError):  # wrong, or not all of it is here yet
                value, stop = BadEntry, len(self._buffer) + 1
            if min(stop, len(self._buffer)) - self.at > MAX_ENTRY:
                break
            if stop < len(self._buffer):
                self.at = stop
                return value
            if not self._more():
                break
        raise SourceError(
            f"{self._name} entry {self.count}: is not JSON, is cut off, or is over {MAX_ENTRY} characters"
        )

    def _more(self) -> bool:
        chunk = self._handle.read(MAX_ENTRY)
        try:
            self._buffer, self.at = self._buffer[self.at :] + self._decode(chunk, not chunk), 0
        except UnicodeDecodeError:
            raise SourceError(f"{self._name}: is not UTF-8 behind entry {self.count}") from None
        return bool(chunk)
