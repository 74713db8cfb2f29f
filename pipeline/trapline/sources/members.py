"""What the readers of tar and zip share: the member of an archive, and a stream that limits the bytes of headers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO


def _copy_nothing(to: IO[bytes]) -> None:
    """Copy the contents of a link or a device, which has none."""


@dataclass(frozen=True, slots=True)
class Member:
    """A named file in an archive.

    Attributes:
        name: as stored; bytes that are not UTF-8 become lone surrogates.
        size: bytes, as the archive claims; of a hard link, those of its target.
        is_file: whether it has contents; a symbolic link or a device has none.
        read: returns the contents; for a tar, only until the next member is asked for. Raises ImageError if only this
            member cannot be read.
        copy: writes the contents to a file, a part at a time; raises as `read` does.
    """

    name: str
    size: int
    is_file: bool
    read: Callable[[], bytes]
    copy: Callable[[IO[bytes]], None] = _copy_nothing


class RationedStream:
    """A stream that gives no more than `ration` bytes until `ration` is set again.

    Parsers read headers into memory whole, however large the headers claim to be.
    """

    def __init__(self, stream: IO[bytes], ration: int) -> None:
        self._stream = stream
        self.ration = ration
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; raise ValueError beyond the ration."""
        data = self._stream.read(size if 0 <= size <= self.ration else self.ration + 1)
        if len(data) > self.ration:
            raise ValueError("more headers than a sound archive has")
        self.ration -= len(data)
        return data
