"""What tar and zip files hold, out of bytes that nobody vouches for.

Whatever these readers raise, unless it comes from the stream, is a fault of the archive: the parsers below them raise
what they come upon, IndexErrors and MemoryErrors included. Memory is bounded, whatever the archive claims, as long as
the caller does not read a member larger than it can bear.
"""

import gzip
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO

from trapline.errors import ImageError, TraplineError, in_one_line

# What may stand before one member of a tar: Linux ends at 4 KB for a path, and mostly at 64 KB for attributes.
_MAX_TAR_HEADER_BYTES = 256 * 2**10
# tarfile's search in PAX headers takes quadratic time over digits (CVE-2024-6232): minutes for 256 KB of them.
_LONG_NUMBER = re.compile(rb"[0-9]{1000}")
# Some 500,000 files, of which zipfile makes ten times as much in memory.
_MAX_ZIP_DIRECTORY_BYTES = 64 * 2**20
# Before a zip member's data: 30 bytes, its name, its extra fields.
_MAX_ZIP_HEADER_BYTES = 30 + 2 * 2**16


@dataclass(frozen=True)
class Member:
    """Something in an archive that has a name; no folder.

    Attributes:
        name: as stored; bytes that are no UTF-8 as lone surrogates.
        size: bytes, as the archive claims.
        is_file: whether it has contents of its own; a link or a device has none.
        read: gives the contents, of a tar's member only until the next is asked for. Raises ImageError where it is
            this member alone that cannot be read.
    """

    name: str
    size: int
    is_file: bool
    read: Callable[[], bytes]


def tar_members(stream: IO[bytes]) -> Iterator[Member]:
    """What a tar holds, gzipped or plain, in its order; reads forward only, and skips what is not asked for.

    Raises:
        Exception: of any kind, where the archive is broken. An end without the end mark is a break.
    """
    is_gzip = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    plain: IO[bytes] = gzip.GzipFile(fileobj=stream) if is_gzip else stream  # type: ignore[assignment]
    headers = _TarHeaders(plain, _MAX_TAR_HEADER_BYTES)
    offset = -1
    with tarfile.open(fileobj=headers, mode="r:", tarinfo=_StrictTarInfo, encoding="utf-8") as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            if member.offset <= offset or member.size < 0:
                raise tarfile.ReadError(f"it leads back from byte {member.offset}")
            offset = member.offset
            if not member.isdir():
                yield Member(member.name, member.size, member.isfile(), partial(_read_tar_member, plain, member))
            # tarfile keeps each member, and each attribute that claims to be for all of them.
            tar.members, tar.pax_headers = [], {}
            headers.ration = _MAX_TAR_HEADER_BYTES
    while rest := plain.read(2**20):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("there is more behind its end mark")


def zip_members(stream: IO[bytes]) -> list[Member]:
    """What a zip holds, in the order of its bytes, so that reading moves forward.

    Raises:
        Exception: of any kind, where there is no sound directory.
    """
    source = _Rationed(stream, _MAX_ZIP_DIRECTORY_BYTES)
    archive = zipfile.ZipFile(source)
    members = []
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if not info.is_dir():
            read = partial(_read_zip_member, archive, source, info, overlaps=info.header_offset < end)
            members.append(Member(info.filename, info.file_size, True, read))
        end = max(end, info.header_offset + info.compress_size)
    return members


def _read_tar_member(plain: IO[bytes], member: tarfile.TarInfo) -> bytes:
    if member.issparse():
        raise ImageError("unreadable", "stored as a sparse file")
    plain.seek(member.offset_data)
    data = plain.read(member.size)
    if len(data) < member.size:
        raise tarfile.ReadError(f"{member.name!a} ends after {len(data)} of {member.size} bytes")
    return data


def _read_zip_member(archive: zipfile.ZipFile, source: "_Rationed", info: zipfile.ZipInfo, overlaps: bool) -> bytes:
    if info.flag_bits & 1:
        raise ImageError("encrypted", "the zip member asks for a password")
    if overlaps:  # as in the bombs of some MB that unpack to PB; newer versions of zipfile refuse it too
        raise ImageError("unreadable", "the zip member overlaps another")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile unpacks the others unbounded
        raise ImageError("unreadable", f"compression method {info.compress_type}; only deflate is supported")
    source.ration = info.compress_size + _MAX_ZIP_HEADER_BYTES
    try:
        with archive.open(info) as file:
            return file.read(info.file_size)
    except TraplineError:
        raise
    except Exception as error:
        raise ImageError("unreadable", in_one_line(error)) from error


class _StrictTarInfo(tarfile.TarInfo):
    """Says so when an archive ends without its end mark, where tarfile by itself takes that for a good end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_StrictTarInfo":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset}") from error


class _Rationed:
    """A stream that gives out no more than `ration` bytes until that is set anew.

    The parsers take headers into memory whole, however large these claim to be.
    """

    def __init__(self, stream: IO[bytes], ration: int) -> None:
        self._stream = stream
        self.ration = ration
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size if 0 <= size <= self.ration else self.ration + 1)
        if len(data) > self.ration:
            raise ValueError("more headers than a sound archive has")
        self.ration -= len(data)
        return data


class _TarHeaders(_Rationed):
    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        if _LONG_NUMBER.search(data):
            raise ValueError("a header of nothing but digits")
        return data
