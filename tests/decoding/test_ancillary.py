"""What stands beside a picture costs the picture nothing, be it damaged, cut or huge."""

import struct
import zlib
from datetime import datetime

import pytest
import torch
from PIL import Image

from tests.support.archives import jpeg
from tests.support.pictures import encoded, soft, tiff
from trapline.decoding import ancillary
from trapline.decoding.decode import Facts, decode

SIZE = (49, 67)
AFTER_THE_HEADER = 33  # of a PNG: signature and IHDR
LAST_CHUNK = 12


def exif() -> bytes:
    values = Image.Exif()
    values[0x0132] = "2024:05:01 06:07:08"
    return values.tobytes()


def segment(number: int, content: bytes) -> bytes:
    return bytes([0xFF, 0xE0 + number]) + struct.pack(">H", 2 + len(content)) + content


def chunk(kind: bytes, content: bytes, flip: int = 0) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ flip)


def assert_same(data: bytes, sound: bytes) -> Facts:
    pixels, facts = decode(data, SIZE)
    expected, _ = decode(sound, SIZE)
    assert facts.status == "ok", facts.error
    assert pixels is not None
    assert expected is not None
    assert torch.equal(pixels, expected)
    return facts


@pytest.mark.parametrize(
    "damaged",
    [
        segment(0, b"JFIF\0"),
        segment(13, b"Photoshop 3.0\x008BIM\x03\xed"),
        segment(14, b"Adobe\0"),
        segment(2, b"MPF\0MM\0*"),
        segment(2, b"ICC_PROFILE\0\2\1"),
    ],
    ids=["jfif", "photoshop", "adobe", "mpf", "icc"],
)
def test_a_damaged_segment_of_a_jpeg_costs_neither_pixels_nor_date(damaged: bytes) -> None:
    sound = jpeg(1, (67, 49), exif=exif())
    facts = assert_same(sound[:2] + damaged + sound[2:], sound)
    assert facts.captured_at == datetime(2024, 5, 1, 6, 7, 8)
    assert (facts.width, facts.height) == (67, 49)


CHUNKS = {
    "checksum": chunk(b"tEXt", b"Comment\0owl", flip=1),
    "large-text": chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(bytes(3 * 2**20))),
    "large-profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(3 * 2**20))),
    "short-resolution": chunk(b"pHYs", b"ab"),
    "short-gamma": chunk(b"gAMA", b"a"),
    "method": chunk(b"zTXt", b"Comment\0\7owl"),
    "animation": chunk(b"acTL", b"\0\0\0\2") + chunk(b"fcTL", b"\0"),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_a_damaged_or_huge_chunk_of_a_png_costs_neither_pixels_nor_date(name: str) -> None:
    sound = encoded(soft(1), "PNG", exif=exif())
    for at in (AFTER_THE_HEADER, len(sound) - LAST_CHUNK):
        facts = assert_same(sound[:at] + CHUNKS[name] + sound[at:], sound)
        assert facts.captured_at == datetime(2024, 5, 1, 6, 7, 8)


def test_damaged_pixels_of_a_png_stay_damaged_without_its_comments() -> None:
    data = encoded(soft(1), "PNG")
    at = len(data) // 2
    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    data = data[:AFTER_THE_HEADER] + CHUNKS["checksum"] + data[AFTER_THE_HEADER:]
    assert decode(data, SIZE)[1].status == "salvaged"


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tag_that_points_beyond_a_tiff_costs_nothing(order: str, big: bool) -> None:
    if order == "MM" and big:
        return  # which is not read at all
    sound = tiff(soft(1), order, big)
    beyond = tiff(soft(1), order, big, t37724=list(range(8)))
    directory = struct.unpack_from("<I" if order == "II" else ">I", beyond, 8 if big and order == "II" else 4)[0]
    place = beyond.index(struct.pack("<H" if order == "II" else ">H", 37724), directory)
    count = place + 4 + (8 if big else 4)
    beyond = beyond[:count] + b"\x7f\x7f\x7f\x7f" + beyond[count + 4 :]
    assert_same(beyond, sound)


@pytest.mark.parametrize("kind", [3, 5, 11])
def test_an_xmp_packet_of_another_type_costs_a_tiff_nothing(kind: int) -> None:
    sound = tiff(soft(1))
    data = tiff(soft(1), t700=[8, 8, 8])
    data = data.replace(struct.pack("<HH", 700, 4), struct.pack("<HH", 700, kind))
    assert_same(data, sound)


def test_what_has_nothing_beside_its_picture_stays_as_it_is() -> None:
    for name, data in (("png", encoded(soft(), "PNG")), ("tiff", tiff(soft())), ("gif", encoded(soft(), "GIF"))):
        assert ancillary.without(data, name) is None
    plain = ancillary.without(jpeg(1), "jpeg")  # without JFIF
    assert plain is not None
    assert ancillary.without(plain, "jpeg") is None


def sized(webp: bytes, more: int = 0) -> bytes:
    """The file with the size of its content in its header, or another one."""
    return webp[:4] + struct.pack("<I", len(webp) - 8 + more) + webp[8:]


def test_what_comes_behind_a_webp_or_a_wrong_size_costs_neither_pixels_nor_date() -> None:
    for options in ({}, {"lossless": True}):
        sound = encoded(soft(1), "WEBP", exif=exif(), **options)
        for data in (sized(sound, 8), sized(sound, -2), sized(sound, 2**31), sized(sound + b"XMP \xff\xff\0\0<x")):
            assert assert_same(data, sound).captured_at == datetime(2024, 5, 1, 6, 7, 8)
        place = sound.index(b"EXIF")
        assert_same(sound[: place + 20], sound)


def test_the_first_frame_of_an_animated_webp_that_is_cut_later_is_whole() -> None:
    frames = [soft(seed).convert("RGBA") for seed in (1, 2, 3)]
    sound = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    second = sound.index(b"ANMF", sound.index(b"ANMF") + 4)
    assert_same(sound[: second + 100], sound)
    assert str(decode(sound[: second - 100], SIZE)[1].error).startswith("truncated: ")


def test_a_webp_that_is_cut_within_its_picture_is_truncated() -> None:
    sound = encoded(soft(1), "WEBP")
    for end in range(16, len(sound) - 2, 37):
        assert str(decode(sound[:end], SIZE)[1].error).startswith("truncated: ")
