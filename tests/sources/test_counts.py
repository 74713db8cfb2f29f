import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import write_folder, write_parquet, write_tar, write_zip
from tests.support.reading import read_sound, shard_of, zip_bytes
from trapline.sources.counts import count_images

MEMBERS = {f"{number}.jpg": bytes([number]) * 700 for number in range(6)}
OTHERS = {"6.json": b"{}", "@eaDir/1.jpg": b"", "._1.jpg": b"", "a.txt": b"x", "nested.zip": b"x"}


@pytest.mark.parametrize(("name", "write"), [("a.tar", write_tar), ("a.zip", write_zip), ("cam", write_folder)])
def test_what_is_counted_is_what_is_read(name: str, write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path / name, MEMBERS | OTHERS)
    assert count_images(shard_of(path)) == len(read_sound(path).records) == 6 + (name != "cam")


def test_of_parquet_the_footer_counts(tmp_path: Path) -> None:
    assert count_images(shard_of(write_parquet(tmp_path / "a.parquet", MEMBERS))) == 6


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_of_long_names_links_and_folders_is_counted(kind: int, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
        for name, type_, size in [
            (f"{'long/' * 25}a.jpg", tarfile.REGTYPE, 1000),
            ("folder.jpg", tarfile.DIRTYPE, 0),
            ("link.jpg", tarfile.LNKTYPE, 0),
            ("soft.jpg", tarfile.SYMTYPE, 0),
            ("ü.jpg", tarfile.REGTYPE, 512),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = type_, size, "a.jpg"
            tar.addfile(info, io.BytesIO(bytes(size)))
    assert count_images(shard_of(tmp_path / "a.tar")) == len(read_sound(tmp_path / "a.tar").records) == 3


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=posix"], ["-z"]])
def test_sparse_files_are_counted(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with (tmp_path / "b.jpg").open("wb") as file:
        for place in range(40):
            file.seek(place * 2**20)
            file.write(b"b")
    path = tmp_path / ("x.tar.gz" if "-z" in options else "x.tar")
    command = ["tar", "--create", "--sparse", *options, f"--file={path}", "a.jpg", "b.jpg", "a.jpg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert count_images(shard_of(path)) == len(read_sound(path).records) == 3


def test_the_size_of_a_large_member_may_be_binary_or_in_a_pax_header(tmp_path: Path) -> None:
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{kind}.tar"
        with path.open("wb") as file:
            for name, size in [("notes.bin", 8 * 2**30), ("a.jpg", 0)]:
                info = tarfile.TarInfo(name)
                info.size = size
                file.write(info.tobuf(kind))
                file.seek(size, 1)  # a hole: it takes no room on the disk
            file.truncate(file.tell() + 1024)
        assert count_images(shard_of(path)) == 1


def test_what_it_cannot_read_it_does_not_count(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "a.zip", "a.parquet"):
        (tmp_path / name).write_bytes(b"\x1f\x8bPK")
        assert count_images(shard_of(tmp_path / name)) is None
    empty = zip_bytes({})
    with_empty = zip_bytes({"a.jpg": b"x"}, edit=lambda archive: setattr(archive, "comment", empty))
    (tmp_path / "c.zip").write_bytes(with_empty)
    assert count_images(shard_of(tmp_path / "c.zip")) is None
    (tmp_path / "d.zip").write_bytes(empty)
    assert count_images(shard_of(tmp_path / "d.zip")) == 0
    pq.write_table(pa.table({"n": [1]}), tmp_path / "b.parquet")
    assert count_images(shard_of(tmp_path / "b.parquet")) == 1
