"""From the bytes of one image to pixels and facts, with birder and Pillow as oracles."""

import hashlib
import io
import os
import resource
import warnings
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from birder.data.datasets.webdataset import wds_rgb_decoder
from birder.data.transforms.classification import inference_preset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from torchvision.transforms.v2.functional import pil_to_tensor

from tests.support.archives import jpeg
from tests.support.pictures import encoded, soft
from trapline.choices import DecodeMode
from trapline.decoding import decode as module
from trapline.decoding import formats
from trapline.decoding.decode import PREPROCESSING, Facts, decode
from trapline.decoding.jpeg import MAX_SCANS

pytestmark = pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated")  # birder's loader

SIZE = (96, 64)  # height and width differ, so that a mix-up shows
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def full_size(data: bytes) -> tuple[torch.Tensor, Facts]:
    """Our pixels before they are resized."""
    with Image.open(io.BytesIO(data)) as image:
        pixels, facts = decode(data, (image.height, image.width))
    assert pixels is not None
    return pixels, facts


def by_pillow(data: bytes) -> torch.Tensor:
    return pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB"))


def by_birder(picture: torch.Tensor | Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """The inference transform, brought back from [0, 1]."""
    transform = inference_preset(size, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})
    return (transform(picture) * 255).round().to(torch.uint8)


def failure(data: bytes) -> str:
    pixels, facts = decode(data, SIZE)
    assert pixels is None
    assert facts.status == "failed"
    assert facts.error is not None
    return facts.error


# --- The pixels are birder's ---


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (67, 49), (640, 480), (3000, 200), (200, 3000)])
def test_jpegs_become_the_bytes_of_birders_loader(size: tuple[int, int]) -> None:
    for subsampling, quality, progressive in product(["4:4:4", "4:2:2", "4:2:0"], [30, 95], [False, True]):
        data = jpeg(1, size, quality, subsampling=subsampling, progressive=progressive)
        pixels, facts = decode(data, SIZE)
        assert pixels is not None
        assert (pixels.dtype, pixels.shape, pixels.is_contiguous()) == (torch.uint8, (3, *SIZE), True)
        assert torch.equal(pixels, by_birder(wds_rgb_decoder("1.jpg", data), SIZE))
        assert (facts.status, facts.error, facts.format) == ("ok", None, "jpeg")
        assert (facts.width, facts.height) == size
        assert torch.equal(full_size(data)[0], by_pillow(data))


def test_photographs_become_the_bytes_of_birders_loader(photographs: Path) -> None:
    for path in sorted(photographs.rglob("*.[jJ][pP][gG]"))[::3]:
        data = path.read_bytes()
        pixels, facts = decode(data, (384, 384))
        if facts.status == "salvaged":
            continue
        assert pixels is not None
        assert torch.equal(pixels, by_birder(wds_rgb_decoder("1.jpg", data), (384, 384))), path
        other_loader = by_birder(Image.open(path).convert("RGB"), (384, 384))
        assert (pixels.int() - other_loader.int()).abs().max() <= 1, path


def without_segment(data: bytes, marker: bytes) -> bytes:
    start = data.index(marker)
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def with_adobe_transform(data: bytes, transform: int) -> bytes:
    at = data.index(b"Adobe") + 11
    return data[:at] + bytes([transform]) + data[at + 1 :]


@pytest.mark.parametrize(
    "data",
    [
        encoded(soft().convert("L"), "JPEG"),
        encoded(soft().convert("CMYK"), "JPEG"),
        with_adobe_transform(encoded(soft().convert("CMYK"), "JPEG"), 2),
        without_segment(encoded(soft().convert("CMYK"), "JPEG"), b"\xff\xee"),
        encoded(soft(), "JPEG", keep_rgb=True),
        encoded(soft(), "JPEG", restart_marker_blocks=1),
        encoded(soft(), "MPO", save_all=True, append_images=[soft(1)]),
    ],
    ids=["greyscale", "CMYK of Adobe", "YCCK", "CMYK", "RGB", "restart markers", "MPO"],
)
def test_every_kind_of_jpeg_has_pillows_pixels(data: bytes) -> None:
    pixels, facts = full_size(data)
    assert (facts.status, facts.format) == ("ok", "jpeg")
    assert torch.equal(pixels, by_pillow(data))


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
    ],
)
def test_lossless_formats_give_the_pixels_that_were_put_in(file_format: str, options: dict[str, Any]) -> None:
    pixels, facts = full_size(encoded(soft(), file_format, **options))
    assert torch.equal(pixels, pil_to_tensor(soft()))
    assert (facts.status, facts.format, facts.width, facts.height) == ("ok", file_format.lower(), 67, 49)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb_as_pillow_converts_it(mode: str) -> None:
    data = encoded(soft().convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    assert torch.equal(full_size(data)[0], by_pillow(data))


def test_alpha_is_dropped_and_not_blended() -> None:
    clear = soft()
    clear.putalpha(0)
    assert torch.equal(full_size(encoded(clear, "PNG"))[0], pil_to_tensor(soft()))


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_of_16_bits_the_high_byte_counts(file_format: str, byte_order: str) -> None:
    samples = np.array([[0, 255, 256, 0x1234, 0x8000, 0xFFFF]], dtype=f"{byte_order}u2")
    pixels, _ = full_size(encoded(Image.fromarray(samples), file_format))
    assert pixels[:, 0].tolist() == [[0, 0, 1, 0x12, 0x80, 0xFF]] * 3


def test_of_several_frames_the_first_counts() -> None:
    frames = [soft(0), soft(1)]
    for file_format in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert torch.equal(full_size(data)[0], by_pillow(data))


def test_exif_orientation_is_not_applied() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    upright, lying = encoded(soft(), "JPEG"), encoded(soft(), "JPEG", exif=turned)
    pixels, facts = full_size(lying)
    assert torch.equal(pixels, full_size(upright)[0])
    assert (facts.width, facts.height) == (67, 49)


def test_a_tiff_lies_as_its_own_orientation_says() -> None:
    data = encoded(soft(), "TIFF", tiffinfo={0x0112: 6})
    pixels, facts = full_size(data)
    assert torch.equal(pixels, by_pillow(data))
    assert (facts.width, facts.height) == (49, 67)


def test_the_preprocessing_is_json_for_the_fingerprint() -> None:
    assert all(isinstance(value, str | int | bool) for value in PREPROCESSING.values())


# --- The faster ways ---

REDUCED: tuple[DecodeMode, ...] = ("close", "fast", "fastest")


def difference(data: bytes, mode: DecodeMode = "fastest") -> float:
    """Mean absolute difference from the exact way, of 255; all facts must agree."""
    (exact, facts), (reduced, reduced_facts) = (decode(data, SIZE, mode) for mode in ("exact", mode))
    assert exact is not None
    assert reduced is not None
    assert facts == reduced_facts
    return float((exact.float() - reduced.float()).abs().mean())


@pytest.mark.parametrize("size", [(1600, 1200), (517, 999), (400, 800)])
def test_faster_ways_give_almost_the_same_pixels_of_large_jpegs(size: tuple[int, int]) -> None:
    for mode in REDUCED:
        assert 0 < difference(jpeg(1, size), mode) < 2


def test_the_faster_the_way_the_larger_the_difference(photographs: Path) -> None:
    data = (photographs / "cameratrapai" / "african_elephants.jpg").read_bytes()
    exact, *others = (decode(data, (384, 384), mode)[0] for mode in ("exact", *REDUCED))
    assert exact is not None
    close, fast, fastest = (
        float((exact.float() - pixels.float()).abs().mean()) for pixels in others if pixels is not None
    )
    assert 0 < close < fast < fastest


@pytest.mark.parametrize("size", [(67, 49), (70, 100)])
def test_faster_ways_give_the_same_pixels_of_jpegs_too_small_to_shrink(size: tuple[int, int]) -> None:
    for mode in REDUCED:
        assert difference(jpeg(1, size), mode) == 0


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_faster_way_changes_nothing_for_other_formats(file_format: str) -> None:
    assert difference(encoded(soft(size=(400, 600)), file_format)) == 0


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_faster_way_takes_jpegs_of_every_colour_model(mode: str) -> None:
    assert difference(encoded(soft(size=(800, 900)).convert(mode), "JPEG")) < 2


def test_a_faster_way_salvages_a_cut_jpeg_and_says_the_same_of_it() -> None:
    data = jpeg(1, (1600, 1200))
    assert difference(data[: len(data) // 2]) < 2


# --- What cannot be used ---


def test_a_file_without_bytes_is_empty() -> None:
    assert failure(b"") == "empty: the file has no bytes"


def test_of_what_is_no_picture_nothing_is_known_but_its_hash() -> None:
    data = b"This is not a picture.\n" * 50
    pixels, facts = decode(data, SIZE)
    assert pixels is None
    assert facts == Facts("failed", facts.error, hashlib.sha256(data).digest())
    assert str(facts.error).startswith("not_an_image: ")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_header_cut_short_is_truncated(file_format: str) -> None:
    assert failure(encoded(soft(), file_format)[:20]).startswith("truncated: ")


def test_a_jpeg_that_the_decoder_refuses_is_corrupt_and_keeps_its_facts() -> None:
    data = jpeg(0, (64, 48)).replace(START_OF_SCAN + b"\0\x0c\x03\x01", START_OF_SCAN + b"\0\x0c\x03\x09")
    assert failure(data) == "corrupt: the decoder refuses it: Invalid component ID 9 in SOS"
    assert decode(data, SIZE)[1].width == 64


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_of_32_bits_are_unsupported(mode: str) -> None:
    assert failure(encoded(soft().convert("L").convert(mode), "TIFF")).startswith("unsupported: ")


def with_size(data: bytes, at: int, number_format: str, side: int) -> bytes:
    numbers = np.array([side, side], dtype=number_format).tobytes()
    return data[:at] + numbers + data[at + len(numbers) :]


@pytest.mark.parametrize("side", [12_000, 65_000])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(file_format: str, side: int) -> None:
    small = encoded(soft(), file_format)
    if file_format == "PNG":
        bomb = with_size(small, 16, ">u4", side)
        bomb = bomb[:29] + zlib.crc32(bomb[12:29]).to_bytes(4, "big") + bomb[33:]
    elif file_format == "JPEG":
        bomb = with_size(small, small.index(b"\xff\xc0") + 5, ">u2", side)
    else:
        bomb = with_size(small, 6, "<u2", side) if file_format == "GIF" else with_size(small, 18, "<u4", side)
    assert failure(bomb).startswith("too_large: ")


def test_the_limit_of_pixels_is_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 100)
    assert decode(jpeg(0, (10, 10)), SIZE)[1].status == "ok"
    pixels, facts = decode(jpeg(0, (10, 11)), SIZE)
    assert pixels is None
    assert (facts.error, facts.height) == ("too_large: 10 x 11 pixels, the limit is 100", 11)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    for progressive in (True, False):
        data = jpeg(0, (64, 48), progressive=progressive)
        last = data.rindex(START_OF_SCAN)
        scan = START_OF_SCAN + b"\0\x08\x01\x01" + (b"\0\x01\x3f\x00" if progressive else b"\0\0\x3f\0") + b"\0"
        bomb = data[:last] + scan * (MAX_SCANS + 1) + END_OF_IMAGE
        assert failure(bomb) == f"too_large: the JPEG has more than {MAX_SCANS} scans"


# --- What breaks off ---


def salvaged(data: bytes, size: tuple[int, int]) -> tuple[torch.Tensor, str]:
    pixels, facts = decode(data, (size[1], size[0]))
    assert pixels is not None
    assert facts.status == "salvaged"
    assert facts.error is not None
    assert facts.error.startswith("truncated: ")
    assert (facts.width, facts.height) == size
    return pixels, facts.error


def test_a_truncated_jpeg_is_salvaged_with_a_flag() -> None:
    whole = jpeg(0, (320, 240))
    pixels, error = salvaged(whole[: len(whole) // 2], (320, 240))
    assert torch.equal(pixels[:, :96], by_pillow(whole)[:, :96])
    rows = int((pixels == 128).all(dim=2).all(dim=0).sum())
    assert rows > 80
    assert error == f"truncated: the file breaks off, {rows} of 240 rows are missing"


def test_zeros_that_a_card_leaves_behind_do_not_become_pixels() -> None:
    whole = jpeg(0, (320, 240))
    cut = whole[: len(whole) // 2].rstrip(b"\0")
    padded = cut + bytes(len(whole) - len(cut))
    assert torch.equal(salvaged(padded, (320, 240))[0], salvaged(cut, (320, 240))[0])


def test_a_jpeg_that_lacks_only_its_end_marker_is_salvaged_whole() -> None:
    whole = jpeg(0, (320, 240))
    pixels, error = salvaged(whole.removesuffix(END_OF_IMAGE), (320, 240))
    assert torch.equal(pixels, by_pillow(whole))
    assert "0 of 240 rows" in error


def test_a_truncated_progressive_jpeg_is_salvaged_in_less_detail() -> None:
    whole = jpeg(0, (320, 240), progressive=True)
    pixels, error = salvaged(whole[: len(whole) * 3 // 4], (320, 240))
    assert (pixels.float() - by_pillow(whole).float()).abs().mean() < 5
    assert "0 of 240 rows" in error


def test_a_jpeg_cut_before_its_pixels_is_failed() -> None:
    whole = jpeg(0, (320, 240))
    scan = whole.index(START_OF_SCAN)
    assert failure(whole[:scan]).startswith("truncated: the file breaks off")
    assert failure(whole[: scan + 6]).startswith("truncated: ")
    assert failure(whole[:30]).startswith("truncated: ")


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "TIFF", "BMP"])
def test_other_formats_are_salvaged_too(file_format: str) -> None:
    whole = encoded(soft(0, (320, 240)), file_format)
    pixels, _ = salvaged(whole[: len(whole) // 2], (320, 240))
    same = (pixels == by_pillow(whole)).all(dim=2).all(dim=0)
    assert 80 < same.sum() < 200


@pytest.mark.parametrize("appended", [b"appended by some tool" * 100, b"a video, with \xff\xda by chance"])
def test_what_comes_after_the_picture_does_no_harm(appended: bytes) -> None:
    whole = jpeg(0)
    pixels, facts = full_size(whole + appended)
    assert torch.equal(pixels, by_pillow(whole))
    assert facts.status == "ok"


def test_broken_pictures_do_not_leak_their_pixels() -> None:
    whole = jpeg(0, (2000, 1500))
    cut = whole[: len(whole) // 10]
    decode(cut, SIZE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20):
        decode(cut, SIZE)  # 9 MB each
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB


# --- Facts, silence, and no surprises ---


def test_the_hash_is_that_of_the_encoded_bytes() -> None:
    data = jpeg(0)
    assert decode(data, SIZE)[1].content_sha256 == hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    ("name", "status", "size"),
    [
        ("african_elephants_truncated_file", "salvaged", (2048, 1536)),
        ("african_elephants_cmyk", "ok", (2048, 1536)),
        ("african_elephants_bw", "ok", (2048, 1536)),
        ("african_elephants_with_exif_orientation", "ok", (1536, 2048)),
    ],
)
def test_awkward_photographs(photographs: Path, name: str, status: str, size: tuple[int, int]) -> None:
    pixels, facts = decode((photographs / "cameratrapai" / f"{name}.jpg").read_bytes(), SIZE)
    assert pixels is not None
    assert (facts.status, (facts.width, facts.height), facts.format) == (status, size, "jpeg")


def test_a_salvaged_photograph_keeps_its_facts_and_its_upper_part(photographs: Path) -> None:
    folder = photographs / "cameratrapai"
    whole, whole_facts = full_size((folder / "african_elephants.jpg").read_bytes())
    part, part_facts = full_size((folder / "african_elephants_truncated_file.jpg").read_bytes())
    assert part_facts.error == "truncated: the file breaks off, 200 of 1536 rows are missing"
    assert torch.equal(part[:, :1300], whole[:, :1300])
    assert part_facts.captured_at == whole_facts.captured_at is not None


def test_neither_pillow_nor_libjpeg_writes_into_the_users_log(capfd: pytest.CaptureFixture[str]) -> None:
    whole = jpeg(0)
    with_remark = whole.removesuffix(END_OF_IMAGE) + bytes(10) + END_OF_IMAGE
    with_warning = encoded(soft().quantize(8), "PNG", transparency=bytes(8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode(with_remark, SIZE)[1].status == "ok"
        assert decode(with_warning, SIZE)[1].status == "ok"
        os.write(2, b"stderr is back")
    assert caught == []
    assert capfd.readouterr().err == "stderr is back"
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


SMALL = soft(0, (24, 18))
SEEDS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: jpeg(0, (24, 18)),
    "progressive": lambda: jpeg(0, (24, 18), progressive=True),
    "cmyk": lambda: encoded(SMALL.convert("CMYK"), "JPEG"),
    "png": lambda: encoded(SMALL, "PNG"),
    "palette": lambda: encoded(SMALL.quantize(8), "PNG", transparency=bytes(8)),
    "webp": lambda: encoded(SMALL, "WEBP"),
    "tiff": lambda: encoded(SMALL, "TIFF"),
    "lzw": lambda: encoded(SMALL, "TIFF", compression="tiff_lzw"),
    "gif": lambda: encoded(SMALL, "GIF"),
    "bmp": lambda: encoded(SMALL, "BMP"),
}


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(draw=st.data())
def test_whatever_the_damage_there_is_one_answer(seed: str, draw: st.DataObject) -> None:
    data = bytearray(SEEDS[seed]())
    # Most of the trouble is in the header.
    for at in draw.draw(st.lists(st.integers(0, len(data) - 1) | st.integers(0, 100), max_size=8)):
        data[at] = draw.draw(st.integers(0, 255))
    damaged = bytes(data[: draw.draw(st.integers(0, len(data)) | st.just(len(data)))])
    pixels, facts = decode(damaged, SIZE)
    assert (pixels is None) == (facts.status == "failed")
    assert (facts.error is None) == (facts.status == "ok")
    if facts.error is not None:
        kind, _, message = facts.error.partition(": ")
        assert kind in {
            "empty",
            "not_an_image",
            "too_large",
            "unsupported",
            "corrupt",
            "truncated",
            *formats.OTHER_KINDS,
        }
        assert message
        assert "\n" not in message
    assert decode(damaged, SIZE)[1] == facts
