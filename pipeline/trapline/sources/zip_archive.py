"""Read the members of a zip, from bytes that may be damaged or hostile.

The directory is parsed here and not by `zipfile`, which decodes names differently in each version of Python, does not
check the number of entries against the end record, and finds no end record more than 64 KB before the end.
"""

import bz2
import lzma
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, Protocol

import pyarrow as pa

from trapline.errors import ImageError, TraplineError, in_one_line
from trapline.sources.limits import image_error
from trapline.sources.members import Member
from trapline.sources.spooled import COPIED_AT_ONCE

# Some 500,000 files.
MAX_DIRECTORY_BYTES = 64 * 2**20
# Bytes after the end record: a comment has up to 64 KB; cards and downloads append more, mostly zeros.
_MAX_TAIL_BYTES = 16 * 2**20
_TAIL_BLOCK = 2**16
# Candidates for the end record: a comment, or a member that is a zip itself, may contain its signature.
_MAX_END_RECORDS = 100
_MAX_PARTS = 1000

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1
_PATCH = 0x20
_UTF8 = 0x800
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075

_METHODS = {
    1: "Shrink", 2: "Reduce", 3: "Reduce", 4: "Reduce", 5: "Reduce", 6: "Implode", 9: "Deflate64", 10: "PKWARE Implode",
    95: "XZ", 96: "JPEG variant", 97: "WavPack", 98: "PPMd", 99: "AES encryption",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the directory says about a member; sizes in bytes."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int


@dataclass(frozen=True)
class ZipDirectory:
    """What a zip's directory holds.

    Attributes:
        members: in the order of their bytes, so that reading moves forward; no folders.
        problem: why some may be missing; None if the directory agrees with the end record.
    """

    members: list[Member]
    problem: str | None


def read_directory(stream: IO[bytes]) -> ZipDirectory:
    """Read the directory of a zip.

    Raises:
        Exception: of any kind, if there is no sound directory.
    """
    end = _find_end(stream)
    stream.seek(end.directory)
    raw = stream.read(end.size)
    entries, problem = _parse(raw, end.count)
    if end.shift > 0 and not problem:
        stream.seek(0)
        if stream.read(4) == b"PK\3\4":
            problem = f"the {end.shift:,} bytes before it are a zip themselves, which is not read"
    members = []
    last = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        if not (entry.name.endswith("/") or stat.S_ISDIR(entry.mode)):
            overlaps = entry.offset < last
            read = partial(_read_member, stream, entry, end.shift, overlaps)
            copy = partial(_copy_member, stream, entry, end.shift, overlaps)
            is_file = not stat.S_ISLNK(entry.mode)  # not S_ISREG: a file that was packed from a pipe has a pipe's mode
            members.append(Member(entry.name, entry.size, is_file, read, copy))
        if entry.offset + entry.packed <= end.directory - end.shift:  # else the entry is damaged
            last = max(last, entry.offset + entry.packed)
    return ZipDirectory(members, problem)


@dataclass(frozen=True)
class _End:
    """Where the directory is and what it should hold; `shift` is the number of bytes before the archive."""

    count: int
    size: int
    directory: int
    shift: int


def _find_end(stream: IO[bytes]) -> _End:
    """Find the last end record that leads to a directory."""
    length = stream.seek(0, 2)
    tail = b""
    seen = None
    tries = 0
    while len(tail) < min(length, _MAX_TAIL_BYTES) and tries < _MAX_END_RECORDS:
        block = min(_TAIL_BLOCK, length - len(tail)) if not tail else min(len(tail), length - len(tail))
        start = length - len(tail) - block
        stream.seek(start)
        tail = stream.read(block) + tail
        place = len(tail)
        # Up to where the block begins that was looked at before.
        while (place := tail.rfind(b"PK\5\6", 0, min(place + 3, block + 21))) >= 0 and tries < _MAX_END_RECORDS:
            tries += 1
            if len(tail) - place >= _END.size:
                end = _end_record(stream, start + place, tail[place : place + _END.size])
                behind = tail[place + _END.size + int.from_bytes(tail[place + 20 : place + 22], "little") :]
                if isinstance(end, _End) and end.shift and behind.strip(b"\0"):
                    end = "the end record is that of a zip inside this one, which is cut off"
                if isinstance(end, _End):
                    return end
                seen = seen or end
    raise ValueError(seen or "it has no end record; it is cut off, or no zip")


def _end_record(stream: IO[bytes], place: int, record: bytes) -> "_End | str":
    """Read the end record at an offset; return what is wrong if it leads to no directory."""
    _, disk, first_disk, _, count, size, offset, _ = _END.unpack(record)
    before = place
    if 0xFFFF in (disk, first_disk, count) or 0xFFFFFFFF in (size, offset):
        stream.seek(max(0, place - _END64_LOCATOR.size))
        locator = stream.read(_END64_LOCATOR.size)
        if locator[:4] == b"PK\6\7":
            _, _, at, _ = _END64_LOCATOR.unpack(locator)
            for guess in (at, place - _END64_LOCATOR.size - _END64.size):  # the latter if bytes precede the archive
                stream.seek(min(max(0, guess), place))
                found = stream.read(_END64.size)
                if found[:4] == b"PK\6\6" and len(found) == _END64.size:
                    _, _, _, _, disk, first_disk, _, count, size, offset = _END64.unpack(found)
                    before = max(0, guess)
                    break
    if 0 < disk < _MAX_PARTS and first_disk <= disk:
        return f"it is the last of {disk + 1} parts of a split zip; join them with `zip -s 0`, and give that"
    if size > MAX_DIRECTORY_BYTES:
        return "its directory has more headers than a sound archive has"
    shift = before - size - offset
    for directory in (before - size, offset):
        if 0 <= directory <= before:
            stream.seek(directory)
            signature = stream.read(4)
            if signature == b"PK\1\2" or (not before and not count and not size):
                return _End(count, min(size, before - directory), directory, shift if directory != offset else 0)
    return "its end record leads to no directory"


def _parse(raw: bytes, count: int) -> tuple[list[_Entry], str | None]:
    entries: list[_Entry] = []
    place = 0
    problem = None
    while place + _ENTRY.size <= len(raw) and raw[place : place + 4] == b"PK\1\2":
        fields = _ENTRY.unpack_from(raw, place)
        flags, method, _, _, crc, packed, size, names, extras, comments, disk, _, attributes, offset = fields[3:]
        place += _ENTRY.size
        name = raw[place : place + names]
        extra = raw[place + names : place + names + extras]
        place += names + extras + comments
        values = _zip64({"size": size, "packed": packed, "offset": offset}, extra)
        if place > len(raw) or (disk not in (0, 0xFFFF)):
            problem = f"entry {len(entries) + 1} of its directory is damaged"
            break
        mode = attributes >> 16
        entries.append(_Entry(_name(name, flags, extra), flags, method, crc, mode=mode, **values))
    if problem is None and (place != len(raw) or len(entries) & 0xFFFF != count & 0xFFFF):
        problem = f"its directory has {len(entries)} of the {count} entries that the end record counts"
    return entries, problem


def _zip64(values: dict[str, int], extra: bytes) -> dict[str, int]:
    """Replace the values that do not fit into 32 bits by those of the extra field."""
    wide = _extra(extra, _ZIP64) or b""
    for name, value in values.items():
        if value == 0xFFFFFFFF and len(wide) >= 8:
            values[name] = int.from_bytes(wide[:8], "little")
            wide = wide[8:]
    return values


def _extra(extra: bytes, wanted: int) -> bytes | None:
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == wanted:
            return extra[4 : 4 + length]
        extra = extra[4 + length :]
    return None


def _name(raw: bytes, flags: int, extra: bytes) -> str:
    """Decode a name: by the UTF-8 flag, else by Info-ZIP's field, else as UTF-8 if valid, else as code page 437."""
    raw = raw.partition(b"\0")[0]
    if flags & _UTF8:
        return raw.decode("utf-8", "surrogateescape")
    path = _extra(extra, _UNICODE_PATH)
    if path and len(path) > 5 and path[0] == 1 and int.from_bytes(path[1:5], "little") == zlib.crc32(raw):
        return path[5:].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _read_member(stream: IO[bytes], entry: _Entry, shift: int, overlaps: bool) -> bytes:
    _refuse(entry, overlaps)
    try:
        _seek(stream, entry, shift)
        packed = stream.read(entry.packed)
        if len(packed) < entry.packed:
            raise ValueError(f"ends after {len(packed)} of {entry.packed} bytes")
        data = _unpack(packed, entry)
    except TraplineError:
        raise
    except Exception as error:
        raise ImageError("unreadable", in_one_line(error)) from error
    _refuse_wrong_contents(entry, len(data), zlib.crc32(data))
    return data


def _copy_member(stream: IO[bytes], entry: _Entry, shift: int, overlaps: bool, to: IO[bytes]) -> None:
    """Write the contents of a member to a file, a piece at a time if it is stored or deflated."""
    if entry.method not in (0, 8):
        if refusal := image_error(entry.size):  # other methods, such as LZMA, are unpacked whole
            raise refusal
        to.write(_read_member(stream, entry, shift, overlaps))
        return
    _refuse(entry, overlaps)
    size = crc = 0
    try:
        _seek(stream, entry, shift)
        for data in _stored(stream, entry) if entry.method == 0 else _inflated(stream, entry):
            size, crc = size + len(data), zlib.crc32(data, crc)
            to.write(data)
            if size > entry.size:
                break
    except TraplineError:
        raise
    except Exception as error:
        raise ImageError("unreadable", in_one_line(error)) from error
    _refuse_wrong_contents(entry, size, crc)


def _stored(stream: IO[bytes], entry: _Entry) -> Iterator[bytes]:
    left = entry.packed
    while left:
        data = stream.read(min(left, COPIED_AT_ONCE))
        if not data:
            raise ValueError(f"ends after {entry.packed - left} of {entry.packed} bytes")
        left -= len(data)
        yield data


def _inflated(stream: IO[bytes], entry: _Entry) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(-15)
    for packed in _stored(stream, entry):
        while packed and not decompressor.eof:
            yield decompressor.decompress(packed, COPIED_AT_ONCE)
            packed = decompressor.unconsumed_tail
    yield decompressor.flush()


def _refuse(entry: _Entry, overlaps: bool) -> None:
    if entry.flags & _ENCRYPTED or entry.method == 99:
        raise ImageError("encrypted", "the zip member asks for a password")
    if entry.flags & _PATCH:
        raise ImageError("unreadable", "the zip member is a patch for another file")
    if overlaps:  # as in zip bombs, of which some MB unpack to PB
        raise ImageError("unreadable", "the zip member overlaps another")


def _seek(stream: IO[bytes], entry: _Entry, shift: int) -> None:
    stream.seek(entry.offset + shift)
    header = stream.read(_LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
        raise ValueError("no member where the directory says")
    *_, names, extras = _LOCAL.unpack(header)
    stream.seek(entry.offset + shift + _LOCAL.size + names + extras)


def _refuse_wrong_contents(entry: _Entry, size: int, crc: int) -> None:
    if size != entry.size:
        found = "more than the" if size > entry.size else f"{size} of the"
        raise ImageError("unreadable", f"unpacks to {found} {entry.size} bytes that its header says")
    if crc != entry.crc:
        raise ImageError("unreadable", "the checksum of the zip member is wrong")


class _Decompressor(Protocol):
    """What zlib, bz2 and lzma have in common."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Unpack up to `max_length` bytes."""


def _unpack(packed: bytes, entry: _Entry) -> bytes:
    """Unpack a member, up to one byte more than it should have, to notice a wrong size."""
    most = entry.size + 1
    if entry.method == 0:
        return packed
    if entry.method == 93:
        return bytes(pa.CompressedInputStream(pa.BufferReader(packed), "zstd").read(most))
    openers: dict[int, Any] = {8: lambda: zlib.decompressobj(-15), 12: bz2.BZ2Decompressor, 14: lambda: _lzma(packed)}
    if entry.method not in openers:
        name = _METHODS.get(entry.method, f"method {entry.method}")
        raise ImageError("unreadable", f"packed with {name}, which is not supported; pack it again with Deflate")
    decompressor: _Decompressor = openers[entry.method]()
    return decompressor.decompress(packed[_lzma_header(packed) :] if entry.method == 14 else packed, most)


def _lzma_header(packed: bytes) -> int:
    return 4 + int.from_bytes(packed[2:4], "little")


def _lzma(packed: bytes) -> lzma.LZMADecompressor:
    properties = packed[4 : _lzma_header(packed)]
    rest, pb = properties[0] % 45, properties[0] // 45
    # The dictionary is allocated whole, so it may be no larger than 64 MiB.
    size = min(int.from_bytes(properties[1:5], "little"), 2**26)
    filters = [{"id": lzma.FILTER_LZMA1, "lc": rest % 9, "lp": rest // 9, "pb": pb, "dict_size": max(size, 4096)}]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
