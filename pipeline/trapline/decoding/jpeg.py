"""Decode JPEGs at full or reduced size, find damage, and salvage what is left of a damaged picture.

Exact pixels come from torchcodec, which uses libjpeg-turbo like Pillow, with the same results; reduced ones come from
simplejpeg, which lets libjpeg-turbo scale by eighths while it decodes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from torchcodec.decoders import decode_jpeg  # type: ignore[attr-defined]

from trapline.errors import ImageError, is_out_of_memory

# Encoders write about 10. Each scan of a few bytes costs a pass over all coefficients, so that a small file could keep
# a worker busy for hours; see "Two Issues with the JPEG Standard", libjpeg-turbo.
MAX_SCANS: Final = 100

END_OF_IMAGE = b"\xff\xd9"
_START_OF_SCAN, _BEGINNING = b"\xff\xda", b"\xff\xd8\xff"
_SOS, _EOI, _SOI, _APP1, _APP2, _DHT = 0xDA, 0xD9, 0xD8, 0xE1, 0xE2, 0xC4
# In a segment of Huffman tables: the byte before the first table for AC coefficients, the number of bytes before the
# symbols of its codes, and the symbol that ends a block.
_FIRST_AC_TABLE, _COUNTS, _END_OF_BLOCK = 0x10, 17, 0x00
# Zeros of this length are two and a half blocks with the tables that cameras use.
_BLANK = bytes(64)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 ... SOF15; the three are DHT, JPG and DAC
_HIERARCHICAL = frozenset({0xC5, 0xC6, 0xCD, 0xCE})
_PROGRESSIVE, _LOSSLESS = frozenset({0xC2, 0xC6, 0xCA, 0xCE}), frozenset({0xC3, 0xC7, 0xCB, 0xCF})
# Grey, YCbCr or RGB, CMYK.
_COMPONENTS = frozenset({1, 3, 4})
# Markers that are allowed between two scans: tables, comments, applications' segments, the next scan.
_BETWEEN_SCANS = frozenset({0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_MARKER = re.compile(rb"\xff+[^\0\xff]")
# Markers without a segment: TEM and the restart markers.
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})

# The colour of blocks without data, after conversion to RGB: in YCbCr and grey, and in CMYK.
_FILL, _FILL_CMYK = 128, 64
# A row of blocks takes at least two bits per block: a byte for ten pixels of its width.
_PIXELS_PER_BYTE = 10
# Cuts to try in a progressive JPEG whose damage looks like a further scan.
_CUTS = 5

# libjpeg's warnings that pixels are lost, and those that are not about pixels.
_DAMAGE = re.compile(r"Corrupt JPEG data: .*|Premature end of JPEG file|Inconsistent progression sequence.*")
_OF_THE_HEADER = re.compile(r"Warning: |Unknown Adobe color transform code")
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
# Webcams and cameras leave a byte or two before the end marker, or pad with zeros.
_HARMLESS_BYTES = 4


@dataclass(frozen=True)
class Header:
    """What the segments before the first scan say.

    Attributes:
        width, height: of the picture, in pixels; 0 if no frame is declared.
        components: colour channels as stored: 1, 3 or 4.
        precision: bits per sample.
        lossless: whether it is one of the lossless kinds, which medical devices and RAW files use.
        hierarchical: whether it is a sequence of frames of growing size.
        progressive: whether coefficients come in several passes.
        scan: where the first scan's data begins; None if the file has no scan.
        channels_in_scan: number of components in the first scan.
        ended: whether the file ends before its first scan begins.
        zeros_end_blocks: whether a run of zeros can be picture, because the code for the end of a block is all zeros.
        applications: positions of the APP1 markers' second bytes; EXIF is in one of these segments.
    """

    width: int = 0
    height: int = 0
    components: int = 0
    precision: int = 8
    lossless: bool = False
    hierarchical: bool = False
    progressive: bool = False
    scan: int | None = None
    channels_in_scan: int = 0
    ended: bool = False
    zeros_end_blocks: bool = True
    applications: tuple[int, ...] = ()

    @property
    def has_one_scan(self) -> bool:
        """Whether no other scan may follow: a sequential scan of all components is the only one."""
        return self.scan is not None and not self.progressive and self.channels_in_scan == self.components


def read_header(data: bytes) -> Header:
    """Return what the segments before the first scan say; never raise, however damaged they are."""
    header = Header()
    applications: list[int] = []
    at = 2
    while found := _MARKER.search(data, at):
        at, marker = found.end(), data[found.end() - 1]
        if marker in _ALONE:
            continue
        if marker in (_EOI, _SOI):
            return replace(header, applications=tuple(applications))
        length = max(int.from_bytes(data[at : at + 2], "big"), 2)
        if at + length > len(data):
            break
        if marker in _FRAMES and length >= 8:
            height, width = (int.from_bytes(data[at + place : at + place + 2], "big") for place in (3, 5))
            header = replace(
                header,
                width=width,
                height=height,
                components=data[at + 7],
                precision=data[at + 2],
                lossless=marker in _LOSSLESS,
                hierarchical=marker in _HIERARCHICAL,
                progressive=marker in _PROGRESSIVE,
            )
        elif marker == _DHT:
            first = _first_symbol(data[at + 2 : at + length])
            header = header if first is None else replace(header, zeros_end_blocks=first == _END_OF_BLOCK)
        elif marker == _APP1:
            applications.append(at - 1)
        elif marker == _SOS:
            channels = data[at + 2] if length > 2 else 0
            return replace(header, scan=at + length, channels_in_scan=channels, applications=tuple(applications))
        at += length
    return replace(header, ended=True, applications=tuple(applications))


def _first_symbol(tables: bytes) -> int | None:
    """Return the symbol of the code of all zeros in the first table for AC coefficients; None without such a table.

    Args:
        tables: a segment's Huffman tables: class and number, how many codes have 1 ... 16 bits, the codes' symbols.
    """
    while len(tables) > _COUNTS:
        if tables[0] == _FIRST_AC_TABLE:
            return tables[_COUNTS]
        tables = tables[_COUNTS + sum(tables[1:_COUNTS]) :]
    return None


def blank_stretch(data: bytes, header: Header) -> str | None:
    """Return what is wrong if a part of the only scan is zeros, which a card gives for a sector that it has lost.

    libjpeg decodes them as coefficients, mostly without a warning: all 63 of a block are -1, as in no real picture.
    Return None if there are no such zeros, or if they may be picture: the shortest code of optimized tables may end a
    block.
    """
    if not header.has_one_scan or header.zeros_end_blocks:
        return None
    end = data.find(END_OF_IMAGE, header.scan)
    at = data.find(_BLANK, header.scan, end if end >= 0 else len(data))
    return None if at < 0 else f"zeros within the scan, from byte {at:,} on"


def breaks_off(data: bytes, header: Header) -> bool:
    """Return whether the file ends before its picture: in the header, or without an end marker after the scan."""
    return header.ended or (header.scan is not None and data.find(END_OF_IMAGE, header.scan) < 0)


def runs_on(data: bytes, header: Header) -> bool:
    """Return whether another JPEG begins before the picture ends, as when a card has mixed up its clusters."""
    _, end = _further_scans(data, header)
    return header.scan is not None and data.startswith(_BEGINNING, end)


def refuse_unsupported(header: Header) -> None:
    """Raise ImageError for the kinds of JPEG that no decoder here reads."""
    if header.lossless:
        raise ImageError("unsupported", "a lossless JPEG; convert it to an ordinary one")
    if header.hierarchical:
        raise ImageError("unsupported", "a hierarchical JPEG; convert it to an ordinary one")
    if header.precision != 8:
        raise ImageError("unsupported", f"a JPEG of {header.precision} bits a sample; convert it to 8 bits")
    if header.scan and header.components and header.components not in _COMPONENTS:
        raise ImageError("unsupported", f"a JPEG of {header.components} colour channels; convert it to RGB")
    if header.scan and header.width and not header.height:
        raise ImageError("unsupported", "a JPEG that does not state its height before the picture; convert it")


def refuse_endless_scans(data: bytes, header: Header) -> None:
    """Raise ImageError if there are more scans than an encoder writes.

    Counting takes as long as the SHA-256, and is left out for pictures that can have only one scan.
    """
    if not header.has_one_scan and data.count(_START_OF_SCAN) > MAX_SCANS:
        raise ImageError("too_large", f"the JPEG has more than {MAX_SCANS} scans")


def decode(data: bytes, header: Header) -> torch.Tensor:
    """Return the same pixels as Pillow, also of CMYK, at 1.5 times its speed: uint8 [3, height, width], RGB.

    libjpeg's warnings go to file descriptor 2, see `damage`.

    Raises:
        OSError: the decoder refuses the file, in libjpeg's words.
    """
    if header.applications:  # rename EXIF's segment: torchcodec would turn the picture, and Trapline takes it as stored
        unnamed = bytearray(data)
        for at in header.applications:
            unnamed[at] = _APP2
        data = bytes(unnamed)
    try:
        return cast(torch.Tensor, decode_jpeg(data))
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise OSError(str(error).partition("\n")[0].rpartition(", ")[2]) from error  # without torchcodec's source line


def decode_reduced(data: bytes, header: Header, at_least: tuple[int, int]) -> torch.Tensor | None:
    """Return the picture at the smallest size, by eighths, that is no smaller than asked.

    Args:
        data: the encoded picture.
        header: its header.
        at_least: height and width.

    Returns:
        `uint8 [3, height, width]`, RGB; None for what simplejpeg does not decode, such as CMYK.

    Raises:
        OSError: the decoder refuses the file, or warns of damage.
    """
    if header.components not in (1, 3):
        return None
    height, width = (min(side, of) for side, of in zip(at_least, (header.height, header.width), strict=True))
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=True)
    except ValueError as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        if _is_harmless(str(error), data):  # simplejpeg raises for harmless warnings, too
            return None
        raise OSError(str(error)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def damage(data: bytes, header: Header, said: str) -> str | None:
    """Return libjpeg's warning if pixels are lost; None if none are.

    Args:
        data: the encoded picture, which was decoded without an error.
        header: its header.
        said: what was written to file descriptor 2 meanwhile: libjpeg's first warning, and perhaps other text.
    """
    warnings = [said]
    if header.components in (1, 3):
        try:
            simplejpeg.decode_jpeg(data, "RGB", strict=True)
        except ValueError as error:  # with the last warning
            warnings.append(str(error))
        else:
            return None  # the text was about something else
    found = (match.group() for warning in warnings for match in [_DAMAGE.search(warning)] if match)
    return next((warning for warning in found if not _is_harmless(warning, data)), None)


def salvage(data: bytes, header: Header) -> tuple[torch.Tensor, int]:
    """Decode the part of a damaged picture that is there.

    Args:
        data: the encoded picture.
        header: its header.

    Returns:
        Pixels like those of `decode`, grey where data is missing, and the number of rows at the bottom without data.

    Raises:
        ImageError: `truncated`: there is not a single row; `corrupt`: the decoder refuses the header.
    """
    # An interrupted write can leave zeros up to the size that the file should have had.
    data = data.rstrip(b"\0")
    if header.scan is None or len(data) - header.scan < header.width / _PIXELS_PER_BYTE:
        raise ImageError("truncated", "the file breaks off before its first row of pixels")
    refusal: OSError | None = None
    picture = None
    for end in _cuts(data, header):
        try:
            picture = decode(data[:end] + END_OF_IMAGE, header)
        except OSError as error:
            refusal = refusal or error
            continue
        missing = _rows_without_data(picture, _FILL_CMYK if header.components == 4 else _FILL)
        if missing < header.height:
            return picture, missing
    if picture is None:
        raise ImageError("corrupt", f"the decoder refuses it: {refusal}")
    return picture, 0  # the picture itself has the colour of missing data


def _is_harmless(warning: str, data: bytes) -> bool:
    if _OF_THE_HEADER.search(warning):
        return True
    left_over = _LEFT_OVER.search(warning)
    if not left_over:
        return False
    count, end = int(left_over.group(1)), data.rfind(END_OF_IMAGE)
    return count <= _HARMLESS_BYTES or not data[max(end - count, 0) : end].strip(b"\0")


def _cuts(data: bytes, header: Header) -> Iterator[int]:
    """Yield where the sound part of the file may end, the best guess first."""
    scans, end = _further_scans(data, header)
    yield end
    yield from reversed(scans[:_CUTS])  # what looks like another scan may be damage


def _further_scans(data: bytes, header: Header) -> tuple[list[int], int]:
    """Return the positions of further scans, and of the first marker that cannot be part of the picture, or the end."""
    scans: list[int] = []
    at = header.scan or 0
    while found := _MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker in _ALONE:
            continue
        if header.has_one_scan or marker not in _BETWEEN_SCANS:
            return scans, found.start()
        if marker == _SOS:
            scans.append(found.start())
        at += int.from_bytes(data[at : at + 2], "big")
    return scans, len(data)


def _rows_without_data(picture: torch.Tensor, fill: int) -> int:
    rows: npt.NDArray[np.uint8] = picture.permute(1, 2, 0).numpy()
    empty = bytes([fill]) * (rows.shape[1] * rows.shape[2])
    for count, row in enumerate(rows[::-1]):
        if row.tobytes() != empty:  # 1 µs a row, where NumPy's comparison takes ten
            return count
    return len(rows)
