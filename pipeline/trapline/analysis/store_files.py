"""Let DuckDB read files of any store, under names without special characters.

DuckDB treats a name as a pattern, a URL or a path, depending on its characters: `card[1].tar` reads `card1.tar`. So it
gets `trapline://` and the file's URL, percent-escaped.
"""

import io
from typing import Any
from urllib.parse import quote, unquote

from fsspec import AbstractFileSystem

from trapline.storage import store
from trapline.storage.store import Entry

PREFIX = "trapline://"

# DuckDB asks for the last 8 bytes, then for the footer: some 30 KB of a result's.
_TAIL = 2**16
# The columns of one row group without its vectors mostly lie within so much.
_READ_AHEAD = 2**18


def name_of(url: str) -> str:
    """Return the name under which DuckDB finds a file.

    Files of this machine keep their own where it is no pattern to DuckDB, which reads them faster than we do.
    """
    if url.startswith("/") and not set("*?[").intersection(url):
        return url
    return PREFIX + quote(url, safe="")


class StoreFiles(AbstractFileSystem):  # type: ignore[misc]
    """The filesystem that DuckDB reads through; it fetches only what DuckDB asks for, and each file's size once."""

    protocol = "trapline"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self._entries: dict[str, Entry] = {}

    def open(self, path: str, mode: str = "rb", **_: Any) -> "_File":
        """Open a file for reading; raises as `store.stat` does."""
        return _File(self._entry(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the size of a file."""
        return {"name": path, "size": self._entry(path).size, "type": "file"}

    def modified(self, path: str) -> Any:
        """Return when a file was modified."""
        return self._entry(path).modified

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the name itself: it is no pattern."""
        return [path]

    def exists(self, path: str, **_: Any) -> bool:
        """Yes: what is not there is an error when it is opened."""
        return True

    def _entry(self, path: str) -> Entry:
        url = unquote(path.removeprefix(PREFIX))
        if url not in self._entries:
            self._entries[url] = store.stat(url)
        return self._entries[url]


class _File(io.RawIOBase):
    """A file that is read in few requests: the tail at once, and elsewhere a little more than is asked for."""

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self._entry = entry
        self._position = 0
        self._start = 0
        self._held = b""

    def read(self, size: int = -1) -> bytes:
        start = self._position
        end = self._entry.size if size < 0 else min(start + size, self._entry.size)
        if start >= end:
            return b""
        if start < self._start or end > self._start + len(self._held):
            self._start = min(start, max(0, self._entry.size - _TAIL))
            reach = min(max(end, start + _READ_AHEAD), self._entry.size)
            self._held = store.read_range(self._entry, self._start, reach)
        self._position = end
        return self._held[start - self._start : end - self._start]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.size}[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
