"""Read the headers of all formats with Pillow, and the pixels of all formats except JPEG."""

import io
import logging
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFile, UnidentifiedImageError

from trapline.decoding import ancillary, completeness, formats, jpeg, tiff
from trapline.errors import ImageError, in_one_line, is_out_of_memory

# The value of pixels whose data is missing: any value with which few pictures end.
_FILL = 127

# libtiff continues after some errors, and reports them; its warnings are about tags.
_LIBTIFF_ERROR = re.compile(r"^[\w.]+: (?!Warning, )(.+)", re.MULTILINE)
_ABSENT_CODEC = re.compile(r"^[\w.]+: (.+ is not (?:configured|implemented))", re.MULTILINE)

# Bitmaps that Pillow does not read: those of Windows CE and of GDI+; with a JPEG or PNG inside, compression 6, CMYK.
_BITMAP_DEPTHS, _BITMAP_COMPRESSIONS = frozenset({2, 48, 64}), frozenset({4, 5, 6, 11, 12, 13})

_SHORT, _WRONG_CHECKSUM = "its compressed data ends early", "the checksum of its pixels is wrong"

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its remarks on odd TIFFs are not for users


def open_header(data: bytes, name: str) -> ImageFile.ImageFile:
    """Read the header of a picture.

    Args:
        data: the encoded picture.
        name: of its format, as `formats.name` gives it.

    Raises:
        ImageError: it is damaged, or of a kind that is not read.
    """
    if name == "jpeg":
        jpeg.refuse_unsupported(jpeg.read_header(data))
    if name == "tiff" and data.startswith(tiff.BIG_ENDIAN_BIG):
        raise ImageError("unsupported", "a BigTIFF in big-endian order, which Pillow does not read; convert it")
    if name == "tiff":
        tiff.refuse_unsupported(data)
    if name == "heic":
        import pi_heif  # 0.1 s, needed for phones' pictures only

        pi_heif.register_heif_opener()
    try:
        return Image.open(io.BytesIO(data), formats=[formats.PILLOW_NAMES[name]])
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", str(error)) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if plain := ancillary.without(data, name):
            return open_header(plain, name)
        if completeness.breaks_off(data, name):
            raise ImageError("truncated", "the file breaks off, and no part of it can be decoded") from error
        if name == "tiff":
            tiff.refuse_unknown(data)
        if name == "bmp":
            _refuse_unknown_bitmap(data)
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {in_one_line(error)}"
        raise ImageError("corrupt", f"the {name} header is damaged{reason}") from error


def _refuse_unknown_bitmap(data: bytes) -> None:
    """Raise ImageError for a bitmap of a kind that Pillow does not read."""
    bits, compression = int.from_bytes(data[28:30], "little"), int.from_bytes(data[30:34], "little")
    if bits in _BITMAP_DEPTHS or compression in _BITMAP_COMPRESSIONS:
        raise ImageError(
            "unsupported", f"a BMP of {bits} bits a pixel and compression {compression}; convert it to JPEG"
        )


def decode(
    image: ImageFile.ImageFile, data: bytes, name: str, stderr: Callable[[], str]
) -> tuple[torch.Tensor, str | None]:
    """Decode the pixels, or those that are left of a damaged picture.

    Args:
        image: with its header read.
        data: the encoded picture.
        name: of its format, any but JPEG.
        stderr: returns what C libraries have written to file descriptor 2 since it was last called.

    Returns:
        `uint8 [3, height, width]`, and what is wrong with it, or None.

    Raises:
        ImageError: there are no pixels, or their conversion is not defined.
        Exception: of any kind, if the file is damaged and gives no pixels.
    """
    try:
        if name == "png":
            missing = _load_png(image, data)
            reason = _SHORT if missing else None if completeness.has_sound_checksums(data) else _WRONG_CHECKSUM
            return _pixels(image, data), reason and completeness.flaw(False, reason, missing, image.height)
        picture = _pixels(image, data)
        complaint = _LIBTIFF_ERROR.search(stderr()) if name == "tiff" else None
        return picture, f"corrupt: damaged ({complaint.group(1)})" if complaint else None
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if absent := _ABSENT_CODEC.search(stderr()):
            raise ImageError("unsupported", f"{absent.group(1)}; convert it to JPEG") from error
        if plain := ancillary.without(data, name):
            return decode(open_header(plain, name), plain, name, stderr)
        broken_off = completeness.breaks_off(data, name)
        try:
            picture, missing = _salvage(data, name)
        except Exception as second:
            if is_out_of_memory(second):
                raise
            missing, picture = image.height, torch.empty(0)
        if missing == image.height:
            if broken_off:
                raise ImageError("truncated", "the file breaks off before its first row of pixels") from error
            raise
        return picture, completeness.flaw(broken_off, in_one_line(error), missing, image.height)


def _salvage(data: bytes, name: str) -> tuple[torch.Tensor, int]:
    """Decode the rows that are there; return the picture, grey elsewhere, and the number of missing rows."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        image = open_header(data, name)
        _load_into(image, _FILL)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    return _pixels(image, data), int(_rows_of(image, _FILL).sum())


def _load_png(image: ImageFile.ImageFile, data: bytes) -> int:
    """Decode a PNG; return how many rows have no data because its compressed data ends early, which zlib allows.

    Such rows keep the fill. The last two rows show it, also in an interlaced picture.
    """
    _load_into(image, _FILL)
    if image.mode == "1" or not _rows_of(image, _FILL)[-2:].any():
        return 0
    other = open_header(data, "png")
    _load_into(other, _FILL + 1)  # the picture itself may be grey there
    return int((_rows_of(image, _FILL) & _rows_of(other, _FILL + 1)).sum())


def _load_into(image: ImageFile.ImageFile, fill: int) -> None:
    """Decode into a picture that is filled with one value, which stays where data is missing."""
    image.im = Image.new(image.mode, image.size, (fill,) * len(image.getbands())).im
    image.load()


def _rows_of(image: Image.Image, fill: int) -> npt.NDArray[np.bool_]:
    pixels = np.asarray(image)
    rows: npt.NDArray[np.bool_] = (pixels == fill).reshape(len(pixels), -1).all(axis=1)
    return rows


def _pixels(image: Image.Image, data: bytes) -> torch.Tensor:
    if image.mode in ("I", "F"):
        raise ImageError("unsupported", f"samples of 32 bits (mode {image.mode}) have no defined white")
    if image.mode.startswith("I;16"):  # Pillow clips grey at 255; for 16-bit colour, it takes the high byte itself
        bits, is_inverted = tiff.grey_levels(data) if image.format == "TIFF" else (16, False)
        grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        image = Image.fromarray(255 - grey if is_inverted else grey)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
