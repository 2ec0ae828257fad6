"""Sites from a file: .txt, .csv or .json (CONTRACT section 5)."""

import stat
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import SourceError
from jobs.sources.entries import Kind
from jobs.sources.index import SiteIndex, SitePage
from jobs.sources.problems import Problems

_MAX_BYTES = 256 * 1024 * 1024


class FileSource:
    """The sites of `path`, read at the first question and again when the file has changed."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self._path = path
        self._kind = kind
        self._index: SiteIndex | None = None
        self._read_at = (0, 0)

    @property
    def problems(self) -> Problems:
        return self._index.problems if self._index else Problems()

    @property
    def warnings(self) -> list[str]:
        return self._index.warnings if self._index else []

    def pages(self, after: str, size: int) -> Iterator[SitePage]:
        while page := self._current().page(after, size):
            yield page
            after = page.cursor

    def remaining(self, after: str) -> int | None:
        return self._current().remaining(after)

    def close(self) -> None:
        if self._index:
            self._index.close()
            self._index = None

    def _current(self) -> SiteIndex:
        try:
            if not stat.S_ISREG((found := self._path.stat()).st_mode):  # a pipe would never end
                raise SourceError(f"{self._path}: is not a file")
            if found.st_size > _MAX_BYTES:
                raise SourceError(f"{self._path}: is larger than {_MAX_BYTES} bytes")
            version = (found.st_mtime_ns, found.st_size)
            if self._index is None or version != self._read_at:
                self.close()
                with self._path.open("rb") as handle:
                    self._index = SiteIndex(handle, self._kind, self._path.name)
                self._read_at = version
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror or error}") from None
        return self._index
