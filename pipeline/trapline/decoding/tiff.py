"""Read the directories of a TIFF or BigTIFF: whether it is a RAW file, whether it is complete, what its samples are."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from trapline.errors import ImageError

BIG_ENDIAN_BIG: Final = b"MM\0+"
_SIGNATURES = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), BIG_ENDIAN_BIG: (">", True)}
# Bytes of a value, by type; 0 for types that this module does not need.
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_FORMATS: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

_BITS, _COMPRESSION, _PHOTOMETRIC, _MAKE, _SUB_DIRECTORIES, _DNG_VERSION = 258, 259, 262, 271, 330, 50706
_SAMPLE_FORMAT, _WIDTH, _HEIGHT = 339, 256, 257
# Kinds of samples without a defined white; the kind "undefined" (4) is in practice used for whole numbers.
_KINDS_WITHOUT_WHITE = {2: "signed numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}
_WHITE_IS_ZERO = 0
_OFFSETS_AND_LENGTHS = ((273, 279), (324, 325))  # of strips, of tiles
_CFA, _LINEAR_RAW = 32803, 34892  # photometric interpretations that no viewer shows
# Limits, because a damaged file may point in circles, or to thousands of directories.
_MOST_DIRECTORIES, _MOST_VALUES, _MOST_ENTRIES = 16, 2**17, 2**16


@dataclass(frozen=True)
class Directory:
    """Values by tag, of whole numbers and of text, as far as the file holds them."""

    numbers: dict[int, tuple[int, ...]]
    texts: dict[int, bytes]
    is_whole: bool


def directories(data: bytes) -> Iterator[Directory]:
    """Yield the directories of a file, the first page's first; the last may not be whole if the file breaks off."""
    order, big = layout(data)
    waiting = [_first_offset(data)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        at = waiting.pop(0)
        if at and at not in seen:
            seen.add(at)
            directory, after = _directory(data, at, order, big)
            yield directory
            waiting += [*directory.numbers.get(_SUB_DIRECTORIES, ()), after]


def layout(data: bytes) -> tuple[str, bool]:
    """Return the byte order, as `struct` has it, and whether it is a BigTIFF."""
    return _SIGNATURES[data[:4]]


def first_entries(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Yield tag and bytes of each entry of the first directory, and whether its values are in the file."""
    order, big = layout(data)
    entry, offset, count = (struct.Struct(order + kinds) for kinds in (("HHQ", "Q", "Q") if big else ("HHI", "I", "H")))
    at = _first_offset(data)
    try:
        (entries,) = count.unpack_from(data, at)
        at += count.size
        for _ in range(min(entries, _MOST_ENTRIES)):
            tag, kind, length = entry.unpack_from(data, at)
            size, (place,) = _SIZES.get(kind, 0) * length, offset.unpack_from(data, at + entry.size)
            end = at + entry.size + offset.size
            yield tag, data[at:end], size <= offset.size or place + size <= len(data)
            at = end
    except (struct.error, OverflowError):  # beyond the end
        return


def refuse_unsupported(data: bytes) -> None:
    """Raise ImageError if the samples have no defined conversion to 8 bits."""
    numbers = _first(data).numbers
    kinds = [kind for kind in numbers.get(_SAMPLE_FORMAT, ()) if kind in _KINDS_WITHOUT_WHITE]
    bits = max(numbers.get(_BITS, (1,)))
    if kinds or bits > 16:
        samples = _KINDS_WITHOUT_WHITE[kinds[0]] if kinds else "whole numbers"
        raise ImageError("unsupported", f"samples of {bits} bits, {samples}, have no defined white; convert it")


def refuse_unknown(data: bytes) -> None:
    """Raise ImageError if a file that Pillow does not open is whole, and so of a kind that is not read."""
    numbers = _first(data).numbers
    if breaks_off(data) or not all(any(numbers.get(tag, ())) for tag in (_WIDTH, _HEIGHT)):
        return
    if not any(offsets in numbers for offsets, _ in _OFFSETS_AND_LENGTHS):
        return
    bits, compression, colours = (numbers.get(tag, (1,)) for tag in (_BITS, _COMPRESSION, _PHOTOMETRIC))
    raise ImageError(
        "unsupported",
        f"a TIFF of {len(bits)} samples of {max(bits)} bits a pixel, compression {compression[0]} and photometric "
        f"interpretation {colours[0]}; convert it to JPEG",
    )


def grey_levels(data: bytes) -> tuple[int, bool]:
    """Return the number of bits of a grey sample, and whether 0 is white."""
    numbers = _first(data).numbers
    return numbers.get(_BITS, (16,))[0], numbers.get(_PHOTOMETRIC, (1,))[0] == _WHITE_IS_ZERO


def _first(data: bytes) -> Directory:
    return next(directories(data), Directory({}, {}, False))


def _first_offset(data: bytes) -> int:
    """Return where the first directory is; the end of the file if it is too short to say."""
    order, big = layout(data)
    offset, start = struct.Struct(f"{order}{'Q' if big else 'I'}"), 8 if big else 4
    return int(offset.unpack_from(data, start)[0]) if len(data) >= start + offset.size else len(data)


def is_raw(data: bytes) -> bool:
    """Return whether this is a camera's RAW file (CR2, NEF, ARW, DNG, PEF ...), whose first page is a thumbnail."""
    if data[8:10] == b"CR":
        return True
    for directory in directories(data):
        if _DNG_VERSION in directory.numbers or {*directory.numbers.get(_PHOTOMETRIC, ())} & {_CFA, _LINEAR_RAW}:
            return True
    return False


def maker(data: bytes) -> str:
    """Return the camera's make in the first directory; empty if there is none."""
    return _first(data).texts.get(_MAKE, b"").partition(b"\0")[0].decode("utf-8", "replace").strip()


def breaks_off(data: bytes) -> bool:
    """Return whether the file ends before its first directory, or before that directory's strips or tiles."""
    first = _first(data)
    if not first.is_whole:
        return True
    for offsets, lengths in _OFFSETS_AND_LENGTHS:
        pairs = zip(first.numbers.get(offsets, ()), first.numbers.get(lengths, ()), strict=False)
        if any(offset + length > len(data) for offset, length in pairs):
            return True
    return False


def _directory(data: bytes, at: int, order: str, big: bool) -> tuple[Directory, int]:
    """Read the directory at a position; return it, and the position of the next, 0 if there is none."""
    entry = struct.Struct(f"{order}{'HHQ' if big else 'HHI'}")
    offset = struct.Struct(f"{order}{'Q' if big else 'I'}")
    count = struct.Struct(f"{order}{'Q' if big else 'H'}")
    numbers: dict[int, tuple[int, ...]] = {}
    texts: dict[int, bytes] = {}
    try:
        (entries,) = count.unpack_from(data, at)
        at += count.size
        for _ in range(entries):
            tag, kind, length = entry.unpack_from(data, at)
            size = _SIZES.get(kind, 0) * length
            place = at + entry.size if size <= offset.size else offset.unpack_from(data, at + entry.size)[0]
            at += entry.size + offset.size
            if place + size > len(data):
                raise struct.error
            if kind in _FORMATS and length <= _MOST_VALUES:
                numbers[tag] = struct.unpack_from(f"{order}{length}{_FORMATS[kind]}", data, place)
            elif kind == 2:
                texts[tag] = data[place : place + length]
        return Directory(numbers, texts, True), offset.unpack_from(data, at)[0]
    except (struct.error, OverflowError):  # beyond the end
        return Directory(numbers, texts, False), 0
