"""Remove everything but the picture and its EXIF from a file, for files that Pillow refuses because of the rest.

Pillow refuses a file for a damaged comment, for an XMP packet of more than 1 MB, or for a JFIF segment that is too
short, although its pixels are sound, and every viewer shows them.
"""

import struct
import zlib
from collections.abc import Iterator

from trapline.decoding import tiff

_SOS = 0xDA
# Segments of a JPEG that describe it: the applications', of which EXIF is kept, and comments.
_DESCRIBING = frozenset({*range(0xE0, 0xF0), 0xFE})
_EXIF = b"Exif\0\0"
# A chunk of a PNG is ancillary if the first letter of its name is lower case.
_LOWER_CASE = 0x20
# Chunks of a WebP. An animation's frame states place and size in as many bytes as its canvas does, before its chunks.
_WEBP_CANVAS, _WEBP_FRAME, _WEBP_EXIF = b"VP8X", b"ANMF", b"EXIF"
_WEBP_PIXELS = frozenset({b"VP8 ", b"VP8L"})
_WEBP_FRAME_HEADER = 16
_WEBP_HAS_ALPHA, _WEBP_HAS_EXIF = 0x10, 0x08
# Tags of a TIFF that its pixels depend on, including the orientation; and tags of EXIF.
_TIFF_PIXELS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338}
    | {339, 347, 512, 513, 514, 515, 517, 519, 520, 521, 529, 530, 532}
)
_TIFF_EXIF = frozenset({271, 272, 306, 34665, 34853})


def without(data: bytes, name: str) -> bytes | None:
    """Return a file with its picture and EXIF only; None if it has nothing else.

    Args:
        data: the encoded picture.
        name: of its format, as `formats.name` gives it.
    """
    parts = {"jpeg": _jpeg, "png": _png, "tiff": _tiff, "webp": _webp}.get(name)
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
        if not kind[0] & _LOWER_CASE or (kind == b"eXIf" and _is_sound(data[at:end])):
            yield data[at:end]
        at = end


def _is_sound(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _webp(data: bytes) -> Iterator[bytes]:
    """Yield the file with its first whole picture only: later ones may be cut, or the stated sizes wrong."""
    canvas = exif = b""
    picture: list[tuple[bytes, bytes]] = []
    for kind, content in _webp_chunks(data, 12):
        if kind == _WEBP_CANVAS:
            canvas = content
        elif kind == _WEBP_EXIF:
            exif = content
        elif not any(kind in _WEBP_PIXELS for kind, _ in picture):
            if kind in _WEBP_PIXELS or kind == b"ALPH":
                picture.append((kind, content))
            elif kind == _WEBP_FRAME and content[:12] == bytes(6) + canvas[4:10]:  # as large as the canvas
                picture = list(_webp_chunks(content, _WEBP_FRAME_HEADER))
    if not any(kind in _WEBP_PIXELS for kind, _ in picture):
        yield data
        return
    chunks = picture
    if canvas:
        flags = canvas[0] & _WEBP_HAS_ALPHA | (_WEBP_HAS_EXIF if exif else 0)
        chunks = [(_WEBP_CANVAS, bytes([flags]) + canvas[1:]), *picture, *([(_WEBP_EXIF, exif)] if exif else [])]
    body = b"".join(_webp_chunk(kind, content) for kind, content in chunks)
    yield b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body


def _webp_chunks(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of each chunk that is whole."""
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > len(data):
            return
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def _tiff(data: bytes) -> Iterator[bytes]:
    """Yield the file with a new first directory appended."""
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
