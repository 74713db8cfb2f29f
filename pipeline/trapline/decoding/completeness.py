"""Decide from a file's structure, and not from a decoder's messages, whether it ends before its picture does."""

import zlib
from collections.abc import Callable
from typing import Final

from trapline.decoding import jpeg, tiff


def breaks_off(data: bytes, name: str) -> bool:
    """Return whether the file lacks its end.

    Args:
        data: the encoded picture.
        name: of its format, as `formats.name` gives it.
    """
    return _CHECKS[name](data)


def has_sound_checksums(png: bytes) -> bool:
    """Return whether the pixels of a PNG match their checksums.

    Pillow does not check them, and zlib's own checksum comes after the last pixel: zeros in place of a file's end, as
    cards leave them, would decode as pixels.
    """
    at = 8
    while at + 12 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        chunk = png[at:end]
        if chunk[4:8] == b"IDAT" and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            return False
        at = end
    return True


def flaw(broken_off: bool, reason: str | None, missing: int, height: int) -> str:
    """Return the `error` of a picture that was decoded in part.

    Args:
        broken_off: whether the file lacks its end.
        reason: the decoder's message.
        missing: number of missing rows of pixels.
        height: of the picture, in rows.
    """
    rows = f"{missing} of {height} rows are missing"
    return f"truncated: the file breaks off, {rows}" if broken_off else f"corrupt: damaged ({reason}), {rows}"


def _jpeg(data: bytes) -> bool:
    header = jpeg.read_header(data)
    return jpeg.breaks_off(data, header) or jpeg.runs_on(data, header)


def _png(data: bytes) -> bool:
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return False
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return True


def _webp(data: bytes) -> bool:
    return 8 + int.from_bytes(data[4:8], "little") > len(data)


def _gif(data: bytes) -> bool:
    """Walk the blocks: each is a run of sub-blocks that states its length, up to the trailer."""
    at = 13 + _gif_palette(data[10:11])
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:
            return False
        if kind == 0x2C:  # an image: its descriptor, perhaps a palette, the code size
            at += 11 + _gif_palette(data[at + 9 : at + 10])
        elif kind == 0x21:  # an extension
            at += 2
        else:  # damage, which is not an end
            return False
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return True


def _gif_palette(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _bmp(data: bytes) -> bool:
    """Compare with the size of an uncompressed bitmap; the size that the file states is wrong too often."""
    start, header = (int.from_bytes(data[at : at + 4], "little") for at in (10, 14))
    if len(data) < 14 + header or header < 40:
        return len(data) < 14 + header
    width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
    bits, compression = int.from_bytes(data[28:30], "little"), int.from_bytes(data[30:34], "little")
    if compression not in (0, 3):
        return int.from_bytes(data[2:6], "little") > len(data)
    return start + (width * bits + 31) // 32 * 4 * abs(height) > len(data)


def _boxes(data: bytes) -> bool:
    """Walk the boxes of an ISO base media file (AVIF, HEIC), each of which states its length."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length == 0:  # to the end of the file
            return False
        if at + length > len(data):
            return True
        at += max(length, 8)
    return False


_CHECKS: Final[dict[str, Callable[[bytes], bool]]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "tiff": tiff.breaks_off,
    "gif": _gif,
    "bmp": _bmp,
    "avif": _boxes,
    "heic": _boxes,
}
