import gzip
import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.reading import memory_below, read_all, read_sound, shard_of, tar_bytes, zip_bytes
from trapline.errors import ShardBroken
from trapline.sources import limits
from trapline.sources.limits import Quota
from trapline.sources.records import read

MB = 2**20


def held(path: Path) -> int:
    """Bytes of names and metadata that the rows of a shard hold."""
    rows = 0
    try:
        for record in read(shard_of(path), Counter()):
            rows += 300 + 2 * len(record.key) + len(record.metadata or "")
    except ShardBroken:
        pass
    return rows


def large_metadata(path: Path) -> None:
    table = pa.table({"image": [b"x"] * 200, "note": pa.array(["n" * 700_000] * 200).dictionary_encode()})
    pq.write_table(table, path, compression="zstd")


def many_rows(path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"] * 2_000_000}), path, compression="zstd")


def long_paths(path: Path) -> None:
    table = pa.table({"image": [b"x"] * 1000, "path": pa.array(["p" * 100_000] * 1000).dictionary_encode()})
    pq.write_table(table, path, compression="zstd")


def one_sidecar_for_many(path: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", json.dumps("j" * 900_000))
        for _ in range(500):
            archive.writestr("a.jpg", b"")
    path.write_bytes(sink.getvalue())


def long_names(path: Path) -> None:
    path.write_bytes(gzip.compress(tar_bytes({f"{'n' * 60_000}{number}.jpg": b"" for number in range(1000)}), 1))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.parquet", large_metadata),
        ("b.parquet", many_rows),
        ("c.parquet", long_paths),
        ("a.zip", one_sidecar_for_many),
        ("a.tar.gz", long_names),
    ],
)
def test_what_a_shard_holds_in_memory_is_bounded_by_its_bytes(name: str, make: object, tmp_path: Path) -> None:
    path = tmp_path / name
    make(path)  # type: ignore[operator]
    assert path.stat().st_size < 3 * MB
    assert held(path) < 32 * MB + 4 * path.stat().st_size


def test_metadata_beyond_the_limit_is_counted(tmp_path: Path) -> None:
    large_metadata(tmp_path / "a.parquet")
    outcome = read_sound(tmp_path / "a.parquet")
    assert len(outcome.records) == 200
    without = sum(metadata is None for metadata in outcome.metadata.values())
    assert without > 150
    assert outcome.ignored == {"(sidecar beyond the limit of its shard)": without}


def test_a_column_that_unpacks_to_many_times_the_file_is_left_out(tmp_path: Path) -> None:
    table = pa.table({"image": [b"x", b"y"], "note": ["n" * 40 * MB, "m"], "path": ["a.jpg", "b.jpg"]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    before = pa.total_allocated_bytes()
    with memory_below(8 * MB):
        outcome = read_sound(tmp_path / "a.parquet")
    assert pa.total_allocated_bytes() == before
    assert outcome.metadata == {"a.jpg": None, "b.jpg": None}
    assert outcome.ignored == {"(column 'note', too large)": 1}


def test_rows_and_names_beyond_the_limit_are_a_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_IMAGES", 2)
    monkeypatch.setattr(limits, "_BYTES_PER_IMAGE", 10**9)
    (tmp_path / "a.tar").write_bytes(tar_bytes({f"{number}.jpg": b"" for number in range(4)}))
    outcome = read_all(tmp_path / "a.tar")
    assert len(outcome.records) == 2
    assert "more images than its size allows" in str(outcome.error)
    monkeypatch.undo()
    monkeypatch.setattr(limits, "_NAME_BYTES", 12)
    monkeypatch.setattr(limits, "_NAMES_PER_BYTE", 0)
    outcome = read_all(tmp_path / "a.tar")
    assert len(outcome.records) == 2
    assert "names of its images are too long" in str(outcome.error)


def test_images_beyond_the_limit_are_failed_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_UNPACKED_BYTES", 2 * MB)
    monkeypatch.setattr(limits, "_UNPACKED_PER_BYTE", 0)
    images = {f"{number}.jpg": bytes(MB - 1) for number in range(4)}
    (tmp_path / "a.zip").write_bytes(zip_bytes(images))
    assert list(read_sound(tmp_path / "a.zip").kinds.values()) == [None, None, "too_large", "too_large"]


def test_what_photographs_need_is_far_below_the_limits() -> None:
    quota = Quota("a.tar.gz", 2**30)  # 20,000 of 50 KB each
    for number in range(20_000):
        quota.take_key(f"site=12/cam-{number}/DCIM/100RECNX/IMG_{number}.JPG")
        assert quota.take_metadata("x" * 50_000)
        assert quota.take_data(55_000) is None
