from collections import Counter

import pytest

from trapline.sources.file_types import is_image, is_wanted, sample_stem, shard_format


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.tar", "tar"),
        ("a.TAR.GZ", "tar"),
        ("a.tgz", "tar"),
        ("a.Zip", "zip"),
        ("a.parquet", "parquet"),
        ("a.jpg", None),
        ("tar", None),
        ("a.tar.parquet", "parquet"),
    ],
)
def test_a_shard_is_known_by_its_suffix(name: str, format: str | None) -> None:
    assert shard_format(name) == format


@pytest.mark.parametrize(
    ("name", "image"), [("a.JPG", True), ("x/a.jpeg", True), ("a.tif", True), ("a.jpg.txt", False)]
)
def test_an_image_is_known_by_its_suffix(name: str, image: bool) -> None:
    assert is_image(name) == image


def test_an_image_and_its_sidecar_share_a_stem() -> None:
    for name in ["x/a.jpg", "x/a.json", "x/a.jpg.json", "x/a.JSON", "x/a.png"]:
        assert sample_stem(name) == "x/a"
    assert sample_stem("2023.05.01_a.jpg") != sample_stem("2023.05.01_b.jpg")


def test_what_is_no_image_is_counted_by_what_it_is() -> None:
    ignored: Counter[str] = Counter()
    names = ["a.jpg", "a.json", "b.DAT", "c.dat", "README", "Thumbs.db", "._a.jpg", "._b.jpg", "@eaDir/a.jpg"]
    assert [name for name in names if is_wanted(name, ignored)] == ["a.jpg", "a.json"]
    assert ignored == {".dat": 2, "(no suffix)": 1, "Thumbs.db": 1, "._*": 2, "@eaDir": 1}
