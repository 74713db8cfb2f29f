"""Local files that hold clips while they are decoded, because decoders seek back and forth in a container."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

from trapline.errors import TransientError
from trapline.storage import store
from trapline.storage.retry import with_retries
from trapline.storage.store import Entry

COPIED_AT_ONCE = 2**20
_DESCRIPTORS = Path("/proc/self/fd")


class NoRoom(TransientError):
    """A clip cannot be copied to this machine; the store is not at fault."""


class SpooledFile:
    """A file that exists as long as this object does.

    Attributes:
        path: of the file, for this process and its children.
        size: in bytes.
        sha256: of its bytes.
    """

    def __init__(self, path: str, size: int, sha256: bytes, file: Any = None) -> None:
        self.path = path
        self.size = size
        self.sha256 = sha256
        self._file = file

    @classmethod
    def copied(cls, copy: Callable[[IO[bytes]], object]) -> "SpooledFile":
        """Copy a clip to the folder of temporary files.

        On Linux the file has no name there, and disappears with the process, even if that is killed.

        Args:
            copy: writes the clip's bytes; its errors pass through.

        Raises:
            NoRoom: the folder of temporary files is full.
        """
        nameless = _DESCRIPTORS.exists()
        try:
            file: Any = tempfile.TemporaryFile() if nameless else tempfile.NamedTemporaryFile(prefix="trapline-")  # noqa: SIM115
        except OSError as error:
            raise _full(error) from error
        sink = _Hashing(file)
        copy(sink)  # type: ignore[arg-type]
        sink.flush()
        path = f"/proc/{os.getpid()}/fd/{file.fileno()}" if nameless else file.name
        return cls(path, sink.size, sink.digest(), file)

    @classmethod
    def loose(cls, clip: Entry) -> "SpooledFile":
        """Return a clip of a store: the local file itself, or a copy.

        Raises:
            StorageError: it is gone, or the store refuses us.
            TransientError: it changed since it was listed, or the store does not answer.
            NoRoom: as `copied`.
        """
        if store.remote(clip.url) is None:
            return with_retries(clip.url, lambda: cls.at(clip.url), received=clip.size)
        with store.open_unchanged(clip.url, clip.identity) as stream:
            return cls.copied(partial(copy_bytes, stream, clip.size))

    @classmethod
    def at(cls, path: str) -> "SpooledFile":
        """Return a file that is on this machine already, without copying it.

        Raises:
            OSError: it cannot be read.
        """
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            return cls(path, file.tell(), digest)


def copy_bytes(stream: IO[bytes], size: int, to: IO[bytes]) -> int:
    """Copy up to `size` bytes from a stream's position; return how many were copied."""
    left = size
    while left and (data := stream.read(min(left, COPIED_AT_ONCE))):
        to.write(data)
        left -= len(data)
    return size - left


class _Hashing:
    """Writes to a file, and hashes and counts what is written."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.digest = self._sha256.digest

    def write(self, data: bytes) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            raise _full(error) from error
        self._sha256.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise _full(error) from error


def _full(error: OSError) -> NoRoom:
    folder = tempfile.gettempdir()
    return NoRoom(f"{folder}: a clip cannot be copied there ({error}); make room, or set TMPDIR")
