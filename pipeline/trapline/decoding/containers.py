"""Recognise containers of clips by their first bytes, and decide from their structure whether they lack their end."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

HEAD_BYTES: Final = 4096
"""How much of a file to read to recognise it."""

# Brands of ISO base media files that are no clips: pictures, and a camera's RAW photographs.
_STILL_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"crx "}
# Main brands of clips, whatever else a file says that it is compatible with.
_MOVING_BRANDS = {b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"avc1", b"mp41", b"mp42", b"M4V ", b"MSNV", b"qt  "}
_QUICKTIME_BRAND = b"qt  "
# What QuickTime files without `ftyp`, and parts of fragmented ones, begin with.
_FIRST_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof", b"sidx")
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_TS_PACKETS = re.compile(rb"G.{187}G.{187}G|.{4}G.{191}G.{191}G", re.DOTALL)
_BOX_NAME = re.compile(rb"[ -~\xa9]{4}")
# Boxes at the top whose end a whole file has.
_TOP_BOXES = {
    *(b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"free", b"skip", b"wide", b"uuid", b"meta", b"udta", b"styp"),
    *(b"sidx", b"pnot"),
}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_UNKNOWN_SIZES = {2 ** (7 * length) - 1 for length in range(1, 9)}


@dataclass(frozen=True)
class Container:
    """A kind of container.

    Attributes:
        name: as rows have it.
        demuxer: of FFmpeg. Only the one that is named sees the file: others follow the URLs that playlists hold.
        breaks_off: whether a file of a size, open at its start, lacks its end.
    """

    name: str
    demuxer: str
    breaks_off: Callable[[IO[bytes], int], bool]


def recognise(head: bytes) -> Container | None:
    """Return the container that a file is, by its first `HEAD_BYTES`; None where it is none that is read."""
    if head[4:8] == b"ftyp":
        return _iso(head)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Container("avi", "avi", _riff)
    if head[:4] == _EBML:
        return Container("webm" if b"webm" in head[:64] else "mkv", "matroska", _matroska)
    if head[4:8] in _FIRST_BOXES:
        return Container("mov", "mov", _boxes)
    if head.startswith(_ASF_HEADER):
        return Container("asf", "asf", _asf)
    if _TS_PACKETS.match(head) and not head.startswith((b"\xff\xd8\xff", b"GIF8")):
        return Container("mts", "mpegts", _transport_stream)
    if head[:4] in (b"\0\0\1\xba", b"\0\0\1\xb3"):
        return Container("mpg", "mpeg" if head[3] == 0xBA else "mpegvideo", lambda _, __: False)
    return None


def breaks_off(path: str, container: Container) -> bool:
    """Return whether the file lacks its end, told from its structure."""
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        return container.breaks_off(file, size)


def _iso(head: bytes) -> Container | None:
    end = min(int.from_bytes(head[:4], "big"), len(head), 512)
    main = head[8:12]
    brands = {main, *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & _STILL_BRANDS and main not in _MOVING_BRANDS:
        return None
    name = "mov" if main == _QUICKTIME_BRAND else "3gp" if main[:2] == b"3g" else "mp4"
    return Container(name, "mov", _boxes)


def _boxes(file: IO[bytes], size: int) -> bool:
    """Walk the boxes at the top, each of which states its length; without an index of samples the end is missing."""
    at, has_index = 0, False
    while at < size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if has_index and not _BOX_NAME.fullmatch(header[4:8]):  # what tools and cards leave behind a sound end
            break
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        has_index |= header[4:8] in (b"moov", b"moof")
        if length == 0:  # to the end of the file
            break
        if at + length > size:
            return not has_index or header[4:8] in _TOP_BOXES  # or it is a text of the camera's behind the end
        at += max(length, 8)
    return not has_index


def _riff(file: IO[bytes], size: int) -> bool:
    """Walk the RIFF lists; OpenDML has one for each GB."""
    at = 0
    while at < size:
        file.seek(at)
        header = file.read(8)
        if header[:4] != b"RIFF":
            return False
        length = int.from_bytes(header[4:8], "little")
        # A camera writes the length last; some count these 8 bytes as well.
        if length == 0 or at + length > size:
            return True
        at += 8 + length + length % 2
    return False


def _matroska(file: IO[bytes], size: int) -> bool:
    """Compare with the size that the segment states; one of unknown size ends where the file does."""
    head = file.read(HEAD_BYTES)
    at = head.find(_SEGMENT)
    if at < 0:
        return True
    at += len(_SEGMENT)
    length = 9 - head[at].bit_length() if at < len(head) and head[at] else 8
    value = int.from_bytes(head[at : at + length], "big") & ((1 << (7 * length)) - 1)
    return value not in _UNKNOWN_SIZES and at + length + value > size


def _asf(file: IO[bytes], size: int) -> bool:
    """Compare with the size that the header states; 0 in a recording that was not closed."""
    head = file.read(HEAD_BYTES)
    at = head.find(_ASF_FILE_PROPERTIES)
    stated = int.from_bytes(head[at + 40 : at + 48], "little") if at >= 0 else 0
    return stated == 0 or stated > size


def _transport_stream(file: IO[bytes], size: int) -> bool:
    """Look for a packet that breaks off; zeros that fill a card's last cluster are none."""
    length, sync_at = (188, 0) if file.read(1) == b"G" else (192, 4)
    rest = size % length
    file.seek(size - rest)
    end = file.read(rest)
    return bool(end.strip(b"\0")) and (rest <= sync_at or end[sync_at : sync_at + 1] == b"G")
