"""The bytes of one image become pixels at model size, and facts.

Failures are data: the first word of `Facts.error` is one of

    empty          there are no bytes
    not_an_image   the first bytes belong to no known format
    too_large      more pixels or more scans are declared than the limits below allow
    unsupported    the samples have no defined conversion to 8 bits
    corrupt        damaged: `salvaged` with the pixels that are there, `failed` if there are none
    truncated      the file breaks off: `salvaged` or `failed`, as above
    jpeg_xl ...    the file is something else, which is named; see `formats.py` for all of these

A JPEG counts as damaged if libjpeg reports an error or warns that pixels are lost; if bytes were changed in a way that
the decoder cannot notice, the picture is `ok`, with blemishes.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from tempfile import TemporaryFile
from typing import Final, Literal

import torch
from PIL import ImageFile

from trapline.choices import DecodeMode
from trapline.decoding import exif, formats, image_ops, jpeg, pillow_formats
from trapline.decoding.completeness import flaw
from trapline.decoding.crops import Crops
from trapline.errors import ImageError, in_one_line, is_out_of_memory

# Trail cameras interpolate up to 64 megapixels and phones reach 108. Decoding holds 3 bytes a pixel for most JPEGs, 9
# for a progressive one without subsampling, 14 for PNG and 22 for WebP (measured): at the limit 0.4 to 3 GB.
MAX_PIXELS: Final = 2**27

PREPROCESSING: Final[dict[str, str | int | bool]] = {
    "resize": "both sides to the model's size, no crop",
    "interpolation": "bicubic",
    "antialias": True,
    "orientation": "as stored",
    "alpha": "dropped",
    "sixteen_bit": "high byte",
    "max_pixels": MAX_PIXELS,
    "max_scans": jpeg.MAX_SCANS,
}
"""What is done to a picture before the model sees it, for the fingerprint."""

# The smallest size to which a JPEG's decoder may shrink it, in units of the model's size. For 119 photographs of camera
# traps at 384 pixels: 1.31 times as fast at a mean difference of 0.41 of 255, 1.49 at 0.61, 1.73 at 1.29.
_REDUCED: Final[dict[str, float]] = {"close": 2, "fast": 1.5, "fastest": 1}


@dataclass(frozen=True)
class Facts:
    """What is known about one image, decoded or not; the fields are columns of the output row."""

    status: Literal["ok", "salvaged", "failed"]
    error: str | None  # "kind: message" unless ok
    content_sha256: bytes | None = None  # 32 bytes, of the encoded bytes; None if there are none
    width: int | None = None  # as stored, before orientation; None when the header cannot be read
    height: int | None = None
    format: str | None = None  # "jpeg", "png", "webp", "tiff", "gif", "bmp", "avif" or "heic"; of a clip its container
    captured_at: datetime | None = None  # by the camera's clock
    latitude: float | None = None
    longitude: float | None = None
    camera_make: str | None = None
    camera_model: str | None = None
    camera_serial: str | None = None
    captured_at_tag: str | None = None  # the EXIF tag that `captured_at` was read from
    captured_at_offset: str | None = None  # of the camera's clock from UTC, "+02:00"
    media_type: Literal["image", "video"] | None = "image"
    frame_seconds: float | None = None  # of a frame: from the start of its clip
    duration_seconds: float | None = None  # of a clip
    frame_rate: float | None = None  # of a clip: frames a second, on average


def decode(
    data: bytes, size: tuple[int, int], mode: DecodeMode = "exact", crops: Crops | None = None
) -> tuple[torch.Tensor | None, Facts]:
    """Decode one image and resize it to the model's size: birder's inference transform, up to its uint8 stage.

    The bytes are those of birder's default loader ("tv"). Its Pillow loader decodes to the same pixels and resizes them
    with other rounding: at most 1 of 255 apart. EXIF orientation is not applied, because birder does not apply it, and
    trail cameras hang upright. (In TIFF and HEIC, orientation is part of the pixel layout, and is applied.) Alpha is
    dropped, not blended. The first frame of an animation and the first page of a TIFF count.

    Not for several threads of one process: it changes Pillow's leniency, Python's warnings and stderr, all global.

    Args:
        data: the encoded image.
        size: height and width of the result.
        mode: exact, or how far the JPEG decoder may shrink the picture, in eighths, by averaging instead of filtering:
            close to twice `size`, fast to 1.5 times, fastest to `size`. `benchmark decode` measures speed and
            difference.
        crops: what to resize in place of the whole picture, which is then decoded at its full size.

    Returns:
        `uint8 [3, *size]`, contiguous, RGB, or with `crops` `uint8 [n, 3, *size]`; None if nothing could be decoded.
        And the facts, in any case.

    Raises:
        MemoryError: there is not enough.
    """
    name: str | None = None
    image: ImageFile.ImageFile | None = None
    width = height = None
    resized: torch.Tensor | None = None
    error: str | None = None
    reduced = _at_least(size, mode) if mode != "exact" and not crops else None
    with _captured_stderr() as stderr:
        try:
            name = formats.name(data)
            image = pillow_formats.open_header(data, name)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError("too_large", f"{width} x {height} pixels, the limit is {MAX_PIXELS}")
            if name == "jpeg":
                picture, error = _from_jpeg(data, reduced, stderr)
            else:
                picture, error = pillow_formats.decode(image, data, name, stderr)
            if crops:
                resized = torch.stack(image_ops.cut(picture, size, crops, exif.orientation(image)))
            else:
                resized = image_ops.resize(picture, size)
        except ImageError as refusal:
            error = str(refusal)
        except Exception as refusal:  # Pillow's plugins raise anything on damaged files
            if is_out_of_memory(refusal):
                raise MemoryError from refusal  # perhaps this machine's fault, and not the image's
            error = f"corrupt: {type(refusal).__name__}: {in_one_line(refusal)}"
        facts = Facts(
            status="failed" if resized is None else "salvaged" if error else "ok",
            error=error,
            content_sha256=hashlib.sha256(data).digest(),
            width=width,
            height=height,
            format=name,
            **vars(exif.read(image) if image else exif.Exif()),
        )
    return resized, facts


def _at_least(size: tuple[int, int], mode: str) -> tuple[int, int]:
    height, width = (round(side * _REDUCED[mode]) for side in size)
    return height, width


@contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Keep Pillow's warnings and what C libraries write to file descriptor 2 out of the user's log.

    Yields a function that returns what was written since it was last called: libjpeg has no other way to warn.
    """
    before, capture = os.dup(2), _CAPTURE.fileno()

    def written() -> str:
        text = os.pread(capture, 4096, 0)
        if text:
            os.ftruncate(capture, 0)
            os.lseek(capture, 0, os.SEEK_SET)
        return text.decode(errors="replace")

    try:
        os.dup2(capture, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield written
    finally:
        os.dup2(before, 2)
        os.close(before)
        written()


_CAPTURE = TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as the process


def _from_jpeg(
    data: bytes, at_least: tuple[int, int] | None, stderr: Callable[[], str]
) -> tuple[torch.Tensor, str | None]:
    """Decode at full size, or shrunk by the decoder, but no smaller than `at_least`.

    Returns:
        `uint8 [3, height, width]`, and what is wrong with it, or None.
    """
    header = jpeg.read_header(data)
    jpeg.refuse_endless_scans(data, header)
    reason = jpeg.blank_stretch(data, header)
    broken_off = jpeg.breaks_off(data, header)
    if not broken_off and not reason:  # else decoding it would only take as long again as salvaging it
        try:
            picture = jpeg.decode_reduced(data, header, at_least) if at_least else None
            if picture is None:
                picture = jpeg.decode(data, header)
                warning = stderr()
                reason = jpeg.damage(data, header, warning) if warning else None
            if not reason:
                return picture, None
        except OSError as error:
            reason = str(error)
    picture, missing = jpeg.salvage(data, header)
    return picture, flaw(broken_off or jpeg.runs_on(data, header), reason, missing, picture.shape[1])
