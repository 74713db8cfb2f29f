"""What stands in a picture's file beside the picture, and can be left out where Pillow trips over it.

Pillow refuses a file for a damaged comment, for an XMP packet of more than 1 MB, for a JFIF segment that is too short:
the pixels are there all the same, and every viewer shows them.
"""

import struct
import zlib
from collections.abc import Iterator

from trapline.decoding import tiff

_SOS = 0xDA
# Segments of a JPEG that describe it: the applications', of which EXIF is kept, and comments.
_DESCRIBING = frozenset({*range(0xE0, 0xF0), 0xFE})
_EXIF = b"Exif\0\0"
# A chunk of a PNG is ancillary where the first letter of its name is a small one.
_SMALL_LETTER = 0x20
# Tags of a TIFF that make its pixels, its orientation among them, and those of EXIF.
_TIFF_PIXELS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338}
    | {339, 347, 512, 513, 514, 515, 517, 519, 520, 521, 529, 530, 532}
)
_TIFF_EXIF = frozenset({271, 272, 306, 34665, 34853})


def without(data: bytes, name: str) -> bytes | None:
    """Return a file without what stands beside its picture, EXIF excepted; None where there is nothing of that.

    Args:
        data: the encoded picture.
        name: of its format, as `formats.name` gives it.
    """
    parts = {"jpeg": _jpeg, "png": _png, "tiff": _tiff}.get(name)
    plain = b"".join(parts(data)) if parts else data
    return None if plain == data else plain


def _jpeg(data: bytes) -> Iterator[bytes]:
    yield data[:2]
    at = 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker not in _DESCRIBING:
            if marker < 0xC0 or marker == _SOS or end > len(data):
                break
            yield data[at:end]
        elif data.startswith(_EXIF, at + 4):
            yield data[at:end]
        at = end
    yield data[at:]


def _png(data: bytes) -> Iterator[bytes]:
    yield data[:8]
    at = 8
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if not kind[0] & _SMALL_LETTER or (kind == b"eXIf" and _is_sound(data[at:end])):
            yield data[at:end]
        at = end


def _is_sound(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _tiff(data: bytes) -> Iterator[bytes]:
    """Give the file with another first directory behind it."""
    found = list(tiff.first_entries(data))
    entries = [entry for tag, entry, is_there in found if tag in _TIFF_PIXELS or (is_there and tag in _TIFF_EXIF)]
    if len(entries) == len(found):
        yield data
        return
    order, big = tiff.layout(data)
    place, count = struct.Struct(f"{order}{'Q' if big else 'I'}"), struct.Struct(f"{order}{'Q' if big else 'H'}")
    start = 8 if big else 4
    padding = b"\0" * (len(data) % 2)
    yield data[:start] + place.pack(len(data) + len(padding)) + data[start + place.size :] + padding
    yield count.pack(len(entries)) + b"".join(entries) + place.pack(0)
