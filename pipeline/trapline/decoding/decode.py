"""The bytes of one image become pixels at model size, and facts.

Failures are data: the first word of `Facts.error` is one of

    empty          there are no bytes
    not_an_image   the first bytes belong to none of the formats that we read
    too_large      more pixels or more scans are declared than we are willing to decode
    unsupported    the samples have no defined conversion to 8 bits
    corrupt        the header or the pixels are refused by the decoder
    truncated      the file breaks off: `salvaged` with the pixels that are there, `failed` when there are none

A decoder that does not complain is believed: bytes damaged in the middle of a JPEG can pass as `ok` with blemishes.
"""

import hashlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from trapline.decoding import exif, image_ops
from trapline.decoding.crops import Crops
from trapline.errors import ImageError, in_one_line, is_out_of_memory

# Trail cameras interpolate up to 64 megapixels and phones reach 108. Decoding holds 3 bytes a pixel for most JPEGs, 9
# for a progressive one without subsampling, 14 for PNG and 22 for WebP (measured): at the limit 0.4 to 3 GB.
MAX_PIXELS: Final = 2**27
# Encoders write about 10. Each scan of a few bytes costs a pass over all coefficients, so that a small file could keep
# a worker busy for hours; see "Two Issues with the JPEG Standard", libjpeg-turbo.
MAX_SCANS: Final = 100

PREPROCESSING: Final[dict[str, str | int | bool]] = {
    "resize": "both sides to the model's size, no crop",
    "interpolation": "bicubic",
    "antialias": True,
    "orientation": "as stored",
    "alpha": "dropped",
    "sixteen_bit": "high byte",
    "max_pixels": MAX_PIXELS,
    "max_scans": MAX_SCANS,
}
"""What is done to a picture before the model sees it, for the fingerprint."""

# Format names as Pillow has them. Only the plugin that is named gets to see the bytes.
_SIGNATURE = re.compile(
    rb"(?P<jpeg>\xff\xd8\xff)"
    rb"|(?P<png>\x89PNG\r\n\x1a\n)"
    rb"|(?P<webp>RIFF.{4}WEBP)"
    rb"|(?P<tiff>II\*\0|MM\0\*)"
    rb"|(?P<gif>GIF8[79]a)"
    rb"|(?P<bmp>BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0)",  # with the header's size: two letters are no signature
    re.DOTALL,
)

_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"

_NOWHERE = os.open(os.devnull, os.O_WRONLY)
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its remarks on odd TIFFs belong to no user's log


@dataclass(frozen=True)
class Facts:
    """What is known about one image, whatever became of it; the fields are columns of the output row."""

    status: Literal["ok", "salvaged", "failed"]
    error: str | None  # "kind: message" unless ok
    content_sha256: bytes | None = None  # 32 bytes, of the encoded bytes; None where there was no image to read
    width: int | None = None  # as stored, before orientation; None when the header cannot be read
    height: int | None = None
    format: str | None = None  # "jpeg", "png", "webp", "tiff", "gif" or "bmp"
    captured_at: datetime | None = None
    latitude: float | None = None
    longitude: float | None = None
    camera_make: str | None = None
    camera_model: str | None = None
    camera_serial: str | None = None


def decode(
    data: bytes, size: tuple[int, int], fast: bool = False, crops: Crops | None = None
) -> tuple[torch.Tensor | None, Facts]:
    """Decodes one image and resizes it to what the model takes: birder's inference transform, up to its uint8 stage.

    The bytes are those of birder's default loader ("tv"). Its Pillow loader decodes to the same pixels and resizes them
    with other rounding: at most 1 of 255 apart. EXIF orientation is not applied, as birder does not: trail cameras hang
    upright. (In TIFF orientation is a part of the pixel layout, and Pillow applies it.) Alpha is dropped, not blended.
    Of an animation the first frame counts, of a multi-page TIFF the first page.

    Not for several threads of one process: Pillow's leniency, Python's warnings and stderr are global, and switched.

    Args:
        data: the encoded image.
        size: height and width of the result.
        fast: let the JPEG decoder shrink the picture, by 2, 4 or 8, as long as it stays larger than `size`. The
            decoder averages where the exact way filters, so that pixels differ; `benchmark decode` tells by how much.
        crops: what to resize in place of the whole picture, which is then decoded at its full size.

    Returns:
        `uint8 [3, *size]`, contiguous, RGB, or with `crops` `uint8 [n, 3, *size]`; None when nothing could be decoded.
        And the facts, in each case.

    Raises:
        MemoryError: there is not enough.
    """
    image: ImageFile.ImageFile | None = None
    width = height = None
    resized: torch.Tensor | None = None
    error: str | None = None
    with _quiet():
        try:
            image = _open(data)
            width, height = image.size
            _refuse_bombs(image, data)
            picture, error = _picture(image, data, size if fast and not crops else None)
            resized = _cut(picture, size, crops, image) if crops else image_ops.resize(picture, size)
        except ImageError as refusal:
            error = str(refusal)
        except Exception as refusal:  # Pillow's plugins raise whatever their parsing trips over
            if is_out_of_memory(refusal):
                raise MemoryError from refusal  # perhaps this machine's fault, and not the image's
            error = f"corrupt: {type(refusal).__name__}: {in_one_line(refusal)}"
        facts = Facts(
            status="failed" if resized is None else "salvaged" if error else "ok",
            error=error,
            content_sha256=hashlib.sha256(data).digest(),
            width=width,
            height=height,
            format=_format(data),
            **vars(exif.read(image) if image else exif.Exif()),
        )
    return resized, facts


def _cut(picture: torch.Tensor, size: tuple[int, int], crops: Crops, image: Image.Image) -> torch.Tensor:
    height, width = picture.shape[1:]
    regions = crops.regions(width, height, exif.orientation(image))
    cuts = (picture[:, top : top + rows, left : left + columns] for top, left, rows, columns in regions)
    return torch.stack([image_ops.resize(cut, size) for cut in cuts])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Pillow's warnings and libjpeg's remarks, which go straight to file descriptor 2, out of the user's log."""
    stderr = os.dup(2)
    try:
        os.dup2(_NOWHERE, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextmanager
def _lenient_pillow() -> Iterator[None]:
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _format(data: bytes) -> str | None:
    signature = _SIGNATURE.match(data)
    return signature.lastgroup if signature else None


def _open(data: bytes) -> ImageFile.ImageFile:
    """Reads the header; raises `ImageError`."""
    if not data:
        raise ImageError("empty", "the file has no bytes")
    name = _format(data)
    if not name:
        raise ImageError("not_an_image", "the file is no JPEG, PNG, WebP, TIFF, GIF or BMP")
    try:
        return Image.open(io.BytesIO(data), formats=[name])
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError("corrupt", f"the {name} header is damaged or cut short") from error


def _refuse_bombs(image: ImageFile.ImageFile, data: bytes) -> None:
    """Raises `ImageError` where the header promises a decoding that takes time or memory out of all proportion."""
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too_large", f"{image.width} x {image.height} pixels, the limit is {MAX_PIXELS}")
    if not isinstance(image, JpegImageFile):
        return
    # After a sequential scan of all components no other is accepted, which spares most images the count: it takes as
    # long as the SHA-256.
    first_scan = data.rfind(_START_OF_SCAN, 0, _end_of_header(image))
    alone = first_scan >= 0 and data[first_scan + 4] == image.layers and "progressive" not in image.info
    if not alone and data.count(_START_OF_SCAN) > MAX_SCANS:
        raise ImageError("too_large", f"the JPEG has more than {MAX_SCANS} scans")


def _end_of_header(image: JpegImageFile) -> int:
    """Where Pillow stops: behind the header of the first scan."""
    return image.fp.tell() if image.fp else 0


def _picture(
    image: ImageFile.ImageFile, data: bytes, at_least: tuple[int, int] | None
) -> tuple[torch.Tensor, str | None]:
    """Decodes at full size, or a JPEG at what its decoder easily shrinks it to, but no smaller than `at_least`.

    Returns:
        `uint8 [3, height, width]`, and what is wrong with it when it is not the whole picture.
    """
    try:
        if isinstance(image, JpegImageFile):
            # Where none comes after the header the file breaks off, for scans hold no markers but their own. To decode
            # it first, only to be told so, would take as long as to salvage it.
            if data.rfind(_END_OF_IMAGE, _end_of_header(image)) < 0:
                raise OSError("truncated")
            if not at_least:
                return image_ops.decode_jpeg(data), None
            image.draft("RGB", at_least[::-1])
        return _from_pillow(image), None
    except OSError as error:
        if "truncated" not in str(error):  # the word that both libraries use
            raise
    try:
        # A write that was cut off can leave zeros up to the size that the file should have had.
        picture = _what_there_is(image, data.rstrip(b"\0"))
    except OSError as error:
        raise ImageError("truncated", "the file breaks off before its first row of pixels") from error
    height = picture.shape[1]
    flat = _flat_rows_at_the_end(picture)
    if flat == height:
        raise ImageError("truncated", "the file breaks off before its first row of pixels")
    return picture, f"truncated: the file breaks off, {flat} of {height} rows are of one flat colour"


def _what_there_is(image: ImageFile.ImageFile, data: bytes) -> torch.Tensor:
    """Decodes a file that breaks off; decoders fill what is missing, with grey in JPEG and black elsewhere."""
    if isinstance(image, JpegImageFile):
        return image_ops.decode_jpeg(data + _END_OF_IMAGE)  # as Pillow does it too
    with _lenient_pillow():
        return _from_pillow(_open(data))


def _flat_rows_at_the_end(picture: torch.Tensor) -> int:
    rows = picture.permute(1, 2, 0).numpy()
    for count, row in enumerate(rows[::-1]):
        if row.tobytes() != row[0].tobytes() * len(row):  # 1 µs a row, where NumPy's comparison takes ten
            return count
    return len(rows)


def _from_pillow(image: Image.Image) -> torch.Tensor:
    if image.mode in ("I", "F"):
        raise ImageError("unsupported", f"samples of 32 bits (mode {image.mode}) have no defined white")
    if image.mode.startswith("I;16"):  # Pillow would clip at 255; of 16-bit colour it takes the high byte itself
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
