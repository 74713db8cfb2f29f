"""Read the members of a tar, plain or gzipped, from bytes that may be damaged or hostile."""

import gzip
import io
import re
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import IO, NoReturn

from trapline.errors import ImageError
from trapline.sources.limits import max_unpacked_bytes
from trapline.sources.members import Member, RationedStream
from trapline.sources.spooled import COPIED_AT_ONCE, copy_bytes

# Headers before one member: on Linux a path has at most 4 KB, and attributes mostly at most 64 KB.
_MAX_HEADER_BYTES = 256 * 2**10
# tarfile's search in PAX headers takes quadratic time over digits (CVE-2024-6232): minutes for 256 KB of them.
_LONG_NUMBER = re.compile(rb"[0-9]{1000}")
# How often a gzipped tar may be unpacked from its start to read the targets of hard links.
_MAX_REWINDS = 16

# Bytes of a header: mode, owner and group; time; device.
_UNUSED_NUMBERS = ((100, 124), (136, 148), (329, 345))
_GNU_MAGIC = b"ustar  \0"
_GNU_CONTINUED = b"M"
# Types that are no files: GNU's folder list, long name and volume label; attributes and inodes of Solaris and star.
_NO_FILES = frozenset({b"D", b"N", b"V", b"A", b"E", b"I"})
# Size of a tar without members, as tar itself writes it. A larger one of zeros has lost its content.
_EMPTY_TAR_BYTES = 10_240


def tar_members(stream: IO[bytes]) -> Iterator[Member]:
    """Read the members of a tar in order, forward only except for hard links; contents not asked for are skipped.

    Raises:
        Exception: of any kind, if the archive is broken. An end without the end mark is a break.
    """
    is_gzip = stream.read(2) == b"\x1f\x8b"
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    plain: IO[bytes] = _Unpacked(_View(stream), size) if is_gzip else stream  # type: ignore[assignment]
    targets = _Targets(stream, size) if is_gzip else _Targets(stream)
    headers = _Headers(plain, _MAX_HEADER_BYTES)
    offset = -1
    with tarfile.open(fileobj=headers, mode="r:", tarinfo=_StrictTarInfo, encoding="utf-8") as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            if member.offset <= offset or member.size < 0:
                raise tarfile.ReadError(f"it leads back from byte {member.offset}")
            offset = member.offset
            if member.islnk():
                yield targets.link(member)
            elif member.type == _GNU_CONTINUED:
                yield Member(member.name, 0, True, _refuse_continued, _refuse_continued)
            elif _is_file(member):
                place = _Place(member)
                targets.add(member.name, place)
                read, copy = (
                    partial(_read_member, plain, member.name, place),
                    partial(_copy_member, plain, member.name, place),
                )
                yield Member(member.name, member.size, True, read, copy)
            elif not member.isdir() and member.type not in _NO_FILES:
                yield Member(member.name, 0, False, bytes)
            # tarfile keeps each member, and each global attribute, which would fill the memory.
            tar.members, tar.pax_headers = [], {}
            headers.ration = _MAX_HEADER_BYTES
    while rest := plain.read(2**20):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("there is more behind its end mark")
    if offset < 0 and plain.tell() > _EMPTY_TAR_BYTES:
        raise tarfile.ReadError("it has no members, and is too large for that")


def _is_file(member: tarfile.TarInfo) -> bool:
    """Return whether this is a file; POSIX says to treat unknown types as ordinary files."""
    return member.isreg() or (member.type not in tarfile.SUPPORTED_TYPES and member.type not in _NO_FILES)


class _Place:
    """Where the contents of a file are in a tar.

    Args:
        member: the header of the file.
    """

    def __init__(self, member: tarfile.TarInfo) -> None:
        self.offset = member.offset_data
        self.size = member.size
        # Start and length of each stored part of a sparse file.
        self._parts: list[tuple[int, int]] | None = getattr(member, "sparse", None)

    def read(self, file: IO[bytes]) -> bytes:
        """Return the contents; fewer bytes if the tar ends within them."""
        if self._parts is None:
            file.seek(self.offset)
            return file.read(self.size)
        sink = io.BytesIO()
        self.copy(file, sink)
        return sink.getvalue()

    def copy(self, file: IO[bytes], to: IO[bytes]) -> int:
        """Write the contents; return the number of bytes, fewer than `size` if the tar ends within them.

        Raises:
            ImageError: the map of a sparse file is damaged.
        """
        file.seek(self.offset)
        if self._parts is None:
            return copy_bytes(file, self.size, to)
        written = 0
        for start, length in self._parts:
            if start < written or length < 0 or start + length > self.size:
                raise ImageError("unreadable", "a sparse file whose map of holes is damaged; pack it without --sparse")
            _write_zeros(start - written, to)
            copied = copy_bytes(file, length, to)
            written = start + copied
            if copied < length:
                return written
        _write_zeros(self.size - written, to)
        return self.size


def _write_zeros(count: int, to: IO[bytes]) -> None:
    while count:
        count -= to.write(bytes(min(count, COPIED_AT_ONCE)))


def _read_member(plain: IO[bytes], name: str, place: _Place) -> bytes:
    data = place.read(plain)
    if len(data) < place.size:
        raise tarfile.ReadError(f"{name!a} ends after {len(data)} of {place.size} bytes")
    return data


def _copy_member(plain: IO[bytes], name: str, place: _Place, to: IO[bytes]) -> None:
    copied = place.copy(plain, to)
    if copied < place.size:
        raise tarfile.ReadError(f"{name!a} ends after {copied} of {place.size} bytes")


def _refuse_continued(*_: object) -> NoReturn:
    raise ImageError("unreadable", "the end of a file that begins in another volume of the tar")


class _Targets:
    """The files of a tar that hard links may point to.

    Args:
        stream: the tar as it is stored.
        packed: size of a gzipped tar in bytes; it is unpacked a second time, as far as links need it.
    """

    def __init__(self, stream: IO[bytes], packed: int | None = None) -> None:
        self._stream = stream
        self._packed = packed
        self._places: dict[str, _Place] = {}
        self._again: IO[bytes] | None = None
        self._rewinds = 0

    def add(self, name: str, place: _Place) -> None:
        """Remember where the contents of a file are."""
        self._places[_unpacked_name(name)] = place

    def link(self, member: tarfile.TarInfo) -> Member:
        """Return a hard link as a file with the contents of its target."""
        name = member.linkname
        place = self._places.get(_unpacked_name(name))
        if place is None:
            refuse = partial(_refuse_link, name)
            return Member(member.name, 0, True, refuse, refuse)
        self.add(member.name, place)
        return Member(member.name, place.size, True, partial(self._read, name, place), partial(self._copy, name, place))

    def _read(self, name: str, place: _Place) -> bytes:
        data = place.read(self._at(place.offset))
        if len(data) < place.size:
            raise _cut_link(name, len(data), place.size)
        return data

    def _copy(self, name: str, place: _Place, to: IO[bytes]) -> None:
        copied = place.copy(self._at(place.offset), to)
        if copied < place.size:
            raise _cut_link(name, copied, place.size)

    def _at(self, offset: int) -> IO[bytes]:
        file = self._stream
        if self._packed is not None:
            file = self._again = self._again or _Unpacked(_View(self._stream), self._packed)  # type: ignore[assignment]
            self._rewinds += offset < file.tell()
            if self._rewinds > _MAX_REWINDS:
                raise ImageError("unreadable", "hard links lead back too often in this gzipped tar; unpack it")
        return file


def _unpacked_name(name: str) -> str:
    """Return the path of a file when the tar is unpacked: `./a`, `/a` and `.//a` are all `a`."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _cut_link(target: str, there: int, size: int) -> ImageError:
    return ImageError("unreadable", f"a hard link to {target!a}, which ends after {there} of {size} bytes")


def _refuse_link(target: str, *_: object) -> NoReturn:
    raise ImageError("unreadable", f"a hard link to {target!a}, which the tar does not hold before it")


class _StrictTarInfo(tarfile.TarInfo):
    """The header of a member; raises if an archive ends without its end mark, which tarfile accepts."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictTarInfo":
        """Parse a header; only POSIX's has a prefix of the name, GNU's may have times there (`tar --incremental`)."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.InvalidHeaderError:  # type: ignore[attr-defined]
            header = super().frombuf(_without_unused_numbers(buf), encoding, errors)
        if buf[257:265] == _GNU_MAGIC:
            prefix = tarfile.nts(buf[345:500], encoding, errors)  # type: ignore[attr-defined]
            header.name = header.name.removeprefix(f"{prefix}/") if prefix else header.name
        return header

    def _apply_pax_info(self, pax_headers: dict[str, str], encoding: str, errors: str) -> None:
        """Apply the values of a PAX header; an empty value revokes an earlier one (POSIX)."""
        said = {name: value for name, value in pax_headers.items() if value}
        super()._apply_pax_info(said, encoding, errors)  # type: ignore[misc]

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_StrictTarInfo":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset}") from error


def _without_unused_numbers(header: bytes | bytearray) -> bytes | bytearray:
    """Return a header whose unused numbers, which may be malformed, are 0; as it is if its checksum is wrong."""
    if tarfile.nti(header[148:156]) not in tarfile.calc_chksums(header):  # type: ignore[attr-defined]
        return header
    plain = bytearray(header)
    for start, end in _UNUSED_NUMBERS:
        plain[start:end] = bytes(end - start)
    plain[148:156] = b"%06o\0 " % tarfile.calc_chksums(plain)[0]  # type: ignore[attr-defined]
    return plain


class _View(io.RawIOBase):
    """A stream with a position of its own, so that several readers can use it in turn."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        self._stream.seek(self._position)
        data = self._stream.read(size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._stream.seek(self._position)
        self._position = self._stream.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


class _Unpacked(gzip.GzipFile):
    """A gzip file, unpacked up to a limit: 20 GiB of zeros take 21 MB."""

    def __init__(self, stream: _View, size: int) -> None:
        self._most = max_unpacked_bytes(size)
        super().__init__(fileobj=stream)

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._refuse_beyond_limit(self.tell())
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._refuse_beyond_limit(offset)
        return super().seek(offset, whence)

    def _refuse_beyond_limit(self, position: int) -> None:
        if position > self._most:
            raise ValueError(f"it unpacks to more than {self._most} bytes, many times its size; unpack it by hand")


class _Headers(RationedStream):
    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        if _LONG_NUMBER.search(data):
            raise ValueError("a header of nothing but digits")
        return data
