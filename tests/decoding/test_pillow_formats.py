"""Pictures that are no JPEG: samples of every depth, compressed data that ends early, kinds that are not read."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.pictures import encoded, soft, tiff
from trapline.decoding.decode import Facts, decode

WIDTH, HEIGHT = 66, 48
GREY = np.asarray(soft(1, (WIDTH, HEIGHT)).convert("L"))


def full_size(data: bytes) -> tuple[torch.Tensor, Facts]:
    pixels, facts = decode(data, (HEIGHT, WIDTH))
    assert pixels is not None, facts.error
    return pixels, facts


def grey_tiff(samples: np.ndarray, bits: int, photometric: int = 1, order: str = "II") -> bytes:
    return tiff(samples, order, t256=[WIDTH], t258=[bits], t262=[photometric], t277=[1])


def packed_12(samples: np.ndarray) -> np.ndarray:
    """Two samples of 12 bits in three bytes."""
    even, odd = samples[:, ::2], samples[:, 1::2]
    parts = (even >> 4, (even & 15) << 4 | odd >> 8, odd & 255)
    return np.stack(parts, axis=2).reshape(len(samples), -1).astype(np.uint8)


@pytest.mark.parametrize("white", [0, 1])
def test_grey_of_16_bits_keeps_its_high_byte_whichever_end_is_white(white: int) -> None:
    samples = GREY.astype("<u2") * 256 + 77
    pixels, facts = full_size(grey_tiff(samples if white else 65535 - samples, 16, white))
    assert facts.status == "ok"
    assert torch.equal(pixels, torch.from_numpy(GREY.copy()).expand(3, -1, -1))


def test_grey_of_12_bits_keeps_its_highest_eight() -> None:
    pixels, facts = full_size(grey_tiff(packed_12(GREY.astype(np.uint16) * 16 + 7), 12))
    assert facts.status == "ok"
    assert torch.equal(pixels, torch.from_numpy(GREY.copy()).expand(3, -1, -1))


@pytest.mark.parametrize(
    ("dtype", "sample_format"),
    [("f2", 3), ("f4", 3), ("f8", 3), ("c8", 6), ("i1", 2), ("i2", 2), ("u4", 1), ("u8", 1)],
)
@pytest.mark.parametrize("order", ["II", "MM"])
def test_samples_without_a_defined_white_are_unsupported(dtype: str, sample_format: int, order: str) -> None:
    bits = np.dtype(dtype).itemsize * 8
    samples = GREY.astype(("<" if order == "II" else ">") + dtype)
    data = tiff(samples, order, t256=[WIDTH], t258=[bits], t262=[1], t277=[1], t339=[sample_format])
    assert str(decode(data, (HEIGHT, WIDTH))[1].error).startswith(f"unsupported: samples of {bits} bits")


@pytest.mark.parametrize(("tag", "value"), [(259, 34887), (259, 50002), (259, 9999), (262, 1234)])
def test_a_whole_tiff_that_pillow_does_not_know_is_unsupported_and_a_cut_one_truncated(tag: int, value: int) -> None:
    data = tiff(soft(1, (WIDTH, HEIGHT)), **{f"t{tag}": [value]})
    error = decode(data, (HEIGHT, WIDTH))[1].error
    assert str(error).startswith("unsupported: a TIFF of 3 samples of 8 bits")
    assert str(value) in str(error)
    assert str(decode(data[:-20], (HEIGHT, WIDTH))[1].error).startswith("truncated: ")


def test_a_compression_that_this_libtiff_lacks_is_unsupported() -> None:
    error = str(decode(tiff(soft(1), t259=[50001]), (HEIGHT, WIDTH))[1].error)
    assert error.startswith(("unsupported: WEBP", "corrupt: "))  # where it has it, this is no WebP


def png(picture: Image.Image, rows: int, interlaced: bool = False) -> bytes:
    """A PNG whose compressed data is complete, and holds the first rows only."""
    colours = {"L": 0, "RGB": 2, "P": 3}[picture.mode]
    pixels = np.asarray(picture)
    scanlines = [b"\0" + row.tobytes() for row in pixels]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        scanlines = [b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx]]
        rows += len(scanlines) - len(pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, colours, 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(picture.getpalette() or [])) if colours == 3 else b""
    data = chunk(b"IDAT", zlib.compress(b"".join(scanlines[:rows])))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_png_whose_data_ends_early_without_an_error_is_salvaged(mode: str) -> None:
    picture = soft(1, (WIDTH, HEIGHT)).convert(mode)
    whole, facts = full_size(png(picture, HEIGHT))
    assert facts.status == "ok"
    pixels, facts = full_size(png(picture, 20))
    assert (facts.status, facts.error) == (
        "salvaged",
        "corrupt: damaged (its compressed data ends early), 28 of 48 rows are missing",
    )
    assert torch.equal(pixels[:, :20], whole[:, :20])


def test_an_interlaced_png_whose_data_ends_early_is_salvaged() -> None:
    picture = soft(1, (WIDTH, HEIGHT))
    assert full_size(png(picture, HEIGHT, interlaced=True))[1].status == "ok"
    _, facts = full_size(png(picture, 40, interlaced=True))
    assert str(facts.error).startswith("corrupt: damaged (its compressed data ends early), 8 of 48 rows")


@pytest.mark.parametrize("value", [0, 127, 128, 255])
def test_a_png_of_one_grey_is_whole(value: int) -> None:
    pixels, facts = full_size(encoded(Image.new("RGB", (WIDTH, HEIGHT), (value,) * 3), "PNG"))
    assert facts.status == "ok"
    assert (pixels == value).all()


@pytest.mark.parametrize(("bits", "compression"), [(2, 0), (48, 0), (64, 0), (24, 4), (0, 5)])
def test_a_whole_bitmap_of_a_kind_that_is_not_read_is_unsupported(bits: int, compression: int) -> None:
    data = encoded(soft(1, (WIDTH, HEIGHT)), "BMP") + bytes(8 * WIDTH * HEIGHT)
    data = data[:28] + struct.pack("<HI", bits, compression) + data[34:]
    error = str(decode(data, (HEIGHT, WIDTH))[1].error)
    assert error == f"unsupported: a BMP of {bits} bits a pixel and compression {compression}; convert it to JPEG"
    assert str(decode(data[:60], (HEIGHT, WIDTH))[1].error).startswith("truncated: ")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_png_that_ends_in_zeros_or_has_a_wrong_byte_is_salvaged(share: float) -> None:
    sound = encoded(soft(1, (WIDTH, HEIGHT)), "PNG")
    at = int(len(sound) * share)
    for data in (sound[:at] + bytes(len(sound) - at), sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :]):
        assert full_size(data)[1].status == "salvaged"
    checksum = len(sound) - 16  # of the pixels, before the last chunk
    _, facts = full_size(sound[:checksum] + bytes(4) + sound[checksum + 4 :])
    assert facts.error == "corrupt: damaged (the checksum of its pixels is wrong), 0 of 48 rows are missing"
