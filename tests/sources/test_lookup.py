import io
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import write_folder, write_parquet, write_tar, write_zip
from tests.support.reading import read_sound
from trapline.errors import ShardBroken, StorageError
from trapline.sources import lookup
from trapline.sources.lookup import read_media
from trapline.sources.records import unique_key
from trapline.sources.spooled import SpooledFile
from trapline.storage import store

MEMBERS = {f"{number}.jpg": bytes([number]) * 3000 for number in range(6)} | {"6.json": b"{}"}
WRITERS = [("a.tar", write_tar), ("a.zip", write_zip), ("a.parquet", write_parquet), ("cam", write_folder)]


@pytest.mark.parametrize(("name", "write"), [*WRITERS, ("card.zip", write_folder), ("card.tar", write_folder)])
def test_images_are_found_by_their_keys_in_the_order_of_the_shard(
    name: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    uri = str(write(tmp_path / name, MEMBERS))
    assert list(read_media(uri, ["4.jpg", "gone.jpg", "1.jpg"])) == [
        ("1.jpg", MEMBERS["1.jpg"]),
        ("4.jpg", MEMBERS["4.jpg"]),
    ]
    assert list(read_media(uri, [])) == []


@pytest.mark.parametrize(("name", "write"), [*WRITERS, ("s3", write_folder)])
def test_a_clip_comes_as_a_file(
    name: str, write: Callable[..., Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    members = {"1.jpg": b"image", "2.MP4": b"clip" * 1000, "3.avi": b""}
    if name == "s3":
        uri = f"{request.getfixturevalue('bucket')}/cam"
        for key, data in members.items():
            store.put(f"{uri}/{key}", data)
    else:
        uri = str(write(tmp_path / name, members))
    found = dict(read_media(uri, members))
    assert found.pop("1.jpg") == b"image"
    if name == "a.parquet":  # a cell is one value in memory
        assert found == {"2.MP4": b"clip" * 1000}  # of an empty one there is nothing to see
        return
    for key, clip in found.items():
        assert isinstance(clip, SpooledFile)
        assert Path(clip.path).read_bytes() == members[key]
        assert (clip.path == f"{uri}/{key}") == (name == "cam")
    assert list(found) == ["2.MP4", "3.avi"]


def test_the_keys_are_those_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind, data in [
            ("a.jpg", tarfile.REGTYPE, b"0"),
            ("@eaDir/a.jpg", tarfile.REGTYPE, b"1"),
            ("a.jpg", tarfile.REGTYPE, b"2"),
            ("a.jpg", tarfile.SYMTYPE, b""),
            ("b.jpg", tarfile.LNKTYPE, b""),
            ("c.zip", tarfile.REGTYPE, b"3"),
            ("a.jpg", tarfile.REGTYPE, b"4"),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "a.jpg"
            tar.addfile(info, io.BytesIO(data))
    rows = read_sound(path).images
    assert rows == {"a.jpg": b"0", "a.jpg@2": b"2", "b.jpg": b"2", "c.zip": None, "a.jpg@3": b"4"}
    assert dict(read_media(str(path), rows)) == {key: data for key, data in rows.items() if data}


def test_a_neighbour_that_was_deleted_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "cam", MEMBERS)
    listing = lookup.store.list_folder(str(tmp_path / "cam"))
    (tmp_path / "cam/1.jpg").unlink()
    monkeypatch.setattr(lookup.store, "list_folder", lambda *_: listing)  # deleted after the folder was listed
    assert dict(read_media(str(tmp_path / "cam"), ["1.jpg", "2.jpg"])) == {"2.jpg": MEMBERS["2.jpg"]}


def test_of_parquet_the_column_may_be_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"i"], "other": [b"o"], "path": ["a.jpg"]}), tmp_path / "a.parquet")
    assert list(read_media(str(tmp_path / "a.parquet"), ["a.jpg"])) == [("a.jpg", b"i")]
    assert list(read_media(str(tmp_path / "a.parquet"), ["a.jpg"], "other")) == [("a.jpg", b"o")]


def test_what_is_broken_or_gone_is_an_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", MEMBERS)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ShardBroken, match=r"a\.tar: cannot be read"):
        list(read_media(str(path), ["5.jpg"]))
    for gone in ("gone.tar", "gone"):
        with pytest.raises(StorageError, match="not found"):
            list(read_media(str(tmp_path / gone), ["5.jpg"]))


def test_a_chain_of_ordinals_is_no_recursion() -> None:
    seen: Counter[str] = Counter()
    names = ["x" + "@2" * depth for depth in range(3000)]
    keys = [unique_key(name, seen) for name in [*names, "x", "x"]]
    assert len(set(keys)) == len(keys)
    assert keys[-1] == "x@3"
