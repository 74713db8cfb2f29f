from collections import Counter

import pytest

from trapline.sources import file_types
from trapline.sources.file_types import count_ignored, is_image, is_wanted, junk, sample_stem, shard_format


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
    ("name", "image"),
    [("a.JPG", True), ("x/a.jpeg", True), ("a.tif", True), ("a.HEIC", True), ("a.jfif", True), ("a.jpg.txt", False)],
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


# As Windows, macOS, Linux, Synology, QNAP, Samba, NetApp, ZFS and chkdsk make them.
JUNK = [
    *("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "RECYCLED", "System Volume Information", "FOUND.000", "found.012"),
    *("__MACOSX", ".AppleDouble", ".Trashes", ".Spotlight-V100", ".fseventsd", "Network Trash Folder"),
    *(".Trash", ".Trash-1000", ".trash-0", ".thumbnails", ".xvpics", "lost+found"),
    *("@eaDir", "#recycle", "#snapshot", "@Recycle", ".@__thumb", "@Recently-Snapshot"),
    *(".recycle", "trashbox", ".snapshot", ".zfs", "~snapshot", ".stversions", ".picasaoriginals"),
]


@pytest.mark.parametrize("folder", JUNK)
@pytest.mark.parametrize("path", ["{}/IMG_1.JPG", "cam1/{}/x/IMG_1.JPG", "cam1\\{}\\IMG_1.JPG", "./{}/S-1-5/IMG_1.JPG"])
def test_deleted_pictures_and_thumbnails_are_junk_anywhere(folder: str, path: str) -> None:
    assert junk(path.format(folder)) == folder


@pytest.mark.parametrize(
    "path",
    [
        *("recycle/IMG_1.JPG", "Recycler/IMG_1.JPG", "recycled/IMG_1.JPG", "thumbnails/IMG_1.JPG", "trash/IMG_1.JPG"),
        *(
            "found/IMG_1.JPG",
            "FOUND.0000/IMG_1.JPG",
            "FOUND_000/IMG_1.JPG",
            "snapshot/IMG_1.JPG",
            "Camera #1/IMG_1.JPG",
        ),
        *(
            "zfs/IMG_1.JPG",
            "eaDir/IMG_1.JPG",
            ".hidden/IMG_1.JPG",
            "@Recycle.JPG",
            "_IMG_1.JPG",
            "trash-1000/IMG_1.JPG",
        ),
    ],
)
def test_a_camera_may_be_called_almost_anything(path: str) -> None:
    assert junk(path) is None


def test_kinds_of_ignored_files_are_limited() -> None:
    ignored: Counter[str] = Counter()
    for number in range(10_000):
        assert not is_wanted(f"a.{number:05d}", ignored)
    assert not is_wanted("a." + "x" * 1000, ignored)
    assert not is_wanted("a.00001", ignored)
    assert sum(ignored.values()) == 10_002
    assert ignored[file_types.OTHER] == 10_002 - 101
    assert len(ignored) == 101
    assert sum(map(len, ignored)) < 1000


def test_a_kind_can_stand_in_a_column_of_text() -> None:
    ignored: Counter[str] = Counter()
    count_ignored(ignored, ".\udcfc")
    assert ignored == {".\\xfc": 1}
