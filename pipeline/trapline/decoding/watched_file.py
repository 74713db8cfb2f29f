"""Let FFmpeg read a file, and tell a failing disk from a damaged clip.

FFmpeg treats a failed read as the end of the file, or reports it as damage; and it reports damage as a disk's error
(EIO), too.
"""

from pathlib import Path
from types import TracebackType
from typing import Self


class WatchedFile:
    """A file that seems to end where it cannot be read, and remembers why.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be opened; or when the context ends, whatever ended it: a part of it could not be read.
    """

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed in __exit__
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._error:
            raise self._error

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end, and if the disk fails."""
        try:
            return self._file.read(size) or b""
        except OSError as error:
            self._error = self._error or error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, as a file does; return -1 for one that no file has, as damaged clips lead to."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError):
            return -1

    def tell(self) -> int:
        """Return the place, in bytes."""
        return self._file.tell()
