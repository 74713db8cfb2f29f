"""The directories of a TIFF or BigTIFF, as far as they tell a RAW photograph from a picture and where its bytes end."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

BIG_ENDIAN_BIG: Final = b"MM\0+"
_SIGNATURES = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), BIG_ENDIAN_BIG: (">", True)}
# Bytes of a value, by type; 0 where this module needs no such value.
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_FORMATS: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

_PHOTOMETRIC, _MAKE, _SUB_DIRECTORIES, _DNG_VERSION = 262, 271, 330, 50706
_OFFSETS_AND_LENGTHS = ((273, 279), (324, 325))  # of strips, of tiles
_CFA, _LINEAR_RAW = 32803, 34892  # photometric interpretations that no viewer shows
# A broken file may point in circles, or to thousands of directories.
_MOST_DIRECTORIES, _MOST_VALUES = 16, 2**17


@dataclass(frozen=True)
class Directory:
    """Values by tag, those of whole numbers and of text, as far as the file holds them."""

    numbers: dict[int, tuple[int, ...]]
    texts: dict[int, bytes]
    is_whole: bool


def directories(data: bytes) -> Iterator[Directory]:
    """Yield the directories that the file holds, the first page's first; one that is not whole where the file ends."""
    order, big = _SIGNATURES[data[:4]]
    offset = struct.Struct(f"{order}{'Q' if big else 'I'}")
    start = 8 if big else 4
    waiting = [offset.unpack_from(data, start)[0]] if len(data) >= start + offset.size else [len(data)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        at = waiting.pop(0)
        if at and at not in seen:
            seen.add(at)
            directory, after = _directory(data, at, order, big)
            yield directory
            waiting += [*directory.numbers.get(_SUB_DIRECTORIES, ()), after]


def is_raw(data: bytes) -> bool:
    """Whether this is a camera's RAW file (CR2, NEF, ARW, DNG, PEF ...), whose first page is a mere thumbnail."""
    if data[8:10] == b"CR":
        return True
    for directory in directories(data):
        if _DNG_VERSION in directory.numbers or {*directory.numbers.get(_PHOTOMETRIC, ())} & {_CFA, _LINEAR_RAW}:
            return True
    return False


def maker(data: bytes) -> str:
    """Return the camera's make as the first directory has it; empty where it has none."""
    first = next(directories(data), None)
    return (first.texts.get(_MAKE, b"") if first else b"").partition(b"\0")[0].decode("utf-8", "replace").strip()


def breaks_off(data: bytes) -> bool:
    """Whether the file ends before its first directory does, or before that directory's strips or tiles do."""
    first = next(directories(data), None)
    if first is None or not first.is_whole:
        return True
    for offsets, lengths in _OFFSETS_AND_LENGTHS:
        pairs = zip(first.numbers.get(offsets, ()), first.numbers.get(lengths, ()), strict=False)
        if any(offset + length > len(data) for offset, length in pairs):
            return True
    return False


def _directory(data: bytes, at: int, order: str, big: bool) -> tuple[Directory, int]:
    """Read the directory at a position; gives it, and the position of the next, 0 where there is none."""
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
    except struct.error:  # beyond the end
        return Directory(numbers, texts, False), 0
