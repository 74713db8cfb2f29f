import gc
import hashlib
from collections import Counter
from pathlib import Path

import pytest

from tests.support.archives import write_folder, write_tar, write_zip
from trapline.errors import TransientError
from trapline.sources.records import read
from trapline.sources.shards import discover
from trapline.sources.spooled import SpooledFile
from trapline.storage import store

MEMBERS = {"a.jpg": b"jpeg", "b.mp4": b"clip" * 300_000, "c.MOV": b"", "c.json": b'{"a": 1}'}


def test_a_copy_is_there_as_long_as_its_object_and_then_no_more() -> None:
    copy = SpooledFile.copied(lambda to: to.write(b"abc"))
    path = Path(copy.path)
    assert (path.read_bytes(), copy.size, copy.sha256) == (b"abc", 3, hashlib.sha256(b"abc").digest())
    del copy
    gc.collect()
    assert not path.exists()


def test_a_full_disk_is_no_fault_of_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no device that is always full")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: full.open("wb"))
    with pytest.raises(TransientError, match=r"a clip cannot be copied there .*set TMPDIR"):
        SpooledFile.copied(lambda to: to.write(b"abc"))


def test_a_folder_of_temporary_files_that_is_gone_is_no_fault_of_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(TransientError, match=r"^/nowhere: a clip cannot be copied there .*set TMPDIR"):
        SpooledFile.copied(lambda to: to.write(b"abc"))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "folder"])
@pytest.mark.parametrize("place", ["local", "s3"])
def test_clips_of_every_kind_of_shard_come_as_files(kind: str, place: str, tmp_path: Path, bucket: str) -> None:
    path = tmp_path / "in" / f"card.{kind}"
    if kind == "folder":
        write_folder(path, MEMBERS)
    elif kind == "zip":
        write_zip(path, MEMBERS)
    else:
        write_tar(path, MEMBERS, mode="w:gz" if kind == "tar.gz" else "w")
    root = str(tmp_path / "in")
    if place == "s3":
        for file in filter(Path.is_file, (tmp_path / "in").rglob("*")):
            store.put(f"{bucket}/in/{file.relative_to(tmp_path / 'in')}", file.read_bytes())
        root = f"{bucket}/in"
    ignored: Counter[str] = Counter()
    (shard,) = discover([root], str(tmp_path / "out")).shards
    found = {record.key: record for record in read(shard, ignored)}
    assert list(found) == ["a.jpg", "b.mp4", "c.MOV"]
    assert found["a.jpg"].data == b"jpeg"
    for key in ("b.mp4", "c.MOV"):
        clip = found[key].clip
        assert clip is not None
        assert Path(clip.path).read_bytes() == MEMBERS[key]
        assert (found[key].data, clip.size, found[key].sha256) == (
            None,
            len(MEMBERS[key]),
            hashlib.sha256(MEMBERS[key]).digest(),
        )
    assert found["c.MOV"].metadata == '{"a": 1}'
    assert not ignored
    (shard,) = discover([root], str(tmp_path / "out"), clips=False).shards
    assert [record.key for record in read(shard, ignored)] == ["a.jpg"]
    assert ignored.items() >= {".mp4": 1, ".mov": 1}.items()
