"""Where a file ends before its picture does, whatever its decoder says of it."""

from typing import Any

import pytest

from tests.support.pictures import encoded, soft, tiff
from trapline.decoding import formats
from trapline.decoding.completeness import breaks_off
from trapline.decoding.decode import decode

PICTURES: dict[str, bytes] = {
    "jpeg": encoded(soft(), "JPEG"),
    "progressive jpeg": encoded(soft(), "JPEG", progressive=True),
    "png": encoded(soft(), "PNG"),
    "webp": encoded(soft(), "WEBP"),
    "lossless webp": encoded(soft(), "WEBP", lossless=True),
    "tiff": encoded(soft(), "TIFF"),
    "lzw tiff": encoded(soft(), "TIFF", compression="tiff_lzw"),
    "deflate tiff": encoded(soft(), "TIFF", compression="tiff_adobe_deflate"),
    "jpeg tiff": encoded(soft(), "TIFF", compression="jpeg"),
    "bigtiff": encoded(soft(), "TIFF", big_tiff=True),
    "tiled tiff": tiff(soft(), "MM", tiled=True),
    "gif": encoded(soft(), "GIF"),
    "animated gif": encoded(soft(), "GIF", save_all=True, append_images=[soft(1)]),
    "bmp": encoded(soft(), "BMP"),
    "grey bmp": encoded(soft().convert("L"), "BMP"),
    "avif": encoded(soft(), "AVIF"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_whole_files_are_whole_and_every_part_of_them_is_not(name: str) -> None:
    data = PICTURES[name]
    form = formats.name(data)
    assert not breaks_off(data, form)
    for end in [*range(24, len(data) - 1, max(len(data) // 50, 1)), len(data) - 1]:
        if form == "png" and end >= len(data) - 4:
            continue  # but for the checksum of the end
        if formats.of(data[:end]):
            assert breaks_off(data[:end], form), end


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_cut_short_is_truncated_in_one_word(name: str) -> None:
    data = PICTURES[name]
    for share in (0.2, 0.5) if name == "animated gif" else (0.2, 0.5, 0.8, 0.95):  # whose first picture counts
        pixels, facts = decode(data[: int(len(data) * share)], (64, 64))
        assert str(facts.error).startswith("truncated: "), share
        assert facts.status == ("failed" if pixels is None else "salvaged")


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("GIF", {"interlace": 0})])
def test_the_rows_that_are_there_are_kept_and_the_others_counted(form: str, options: dict[str, Any]) -> None:
    picture = soft(0, (320, 240))
    data = encoded(picture, form, **options)
    _, facts = decode(data[: len(data) // 2], (64, 64))
    assert facts.status == "salvaged"
    missing = int(str(facts.error).rpartition(", ")[2].partition(" ")[0])
    assert 60 < missing < 180


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_black_is_not_missing(form: str) -> None:
    from PIL import Image

    options = {"compress_level": 0} if form == "PNG" else {}
    data = encoded(Image.new("RGB", (320, 240)), form, **options)
    _, facts = decode(data[: len(data) * 3 // 4], (64, 64))
    assert facts.status == "salvaged"
    assert 40 < int(str(facts.error).rpartition(", ")[2].partition(" ")[0]) < 80


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "bmp", "webp", "tiff"])
def test_bytes_behind_the_picture_do_no_harm(name: str) -> None:
    data = PICTURES[name] + b"appended by some tool" * 20
    assert not breaks_off(data, formats.name(data))
    assert decode(data, (64, 64))[1].status == "ok"
