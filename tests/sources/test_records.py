import io
import json
import math
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from itertools import count, product
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.archives import sidecar, write_folder, write_parquet, write_tar, write_zip
from tests.support.reading import (
    assert_contract_under_flips,
    memory_below,
    read_all,
    read_bytes,
    read_sound,
    shard_of,
    tar_bytes,
    zip_bytes,
)
from tests.support.servers import S3Server
from trapline.errors import ShardBroken, StorageError, TransientError
from trapline.sources import limits, loose_images
from trapline.sources.records import read
from trapline.sources.sidecars import UNREADABLE
from trapline.storage import retry, store

IMAGES = {f"DCIM/IMG_{number}.JPG": bytes([number]) * (200 * number) for number in range(1, 6)}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


# Every format


def write_any(kind: str, folder: Path, members: dict[str, bytes]) -> Path:
    if kind == "folder":
        return write_folder(folder / "card", {Path(name).name: data for name, data in members.items()})
    if kind == "tar.gz":
        return write_tar(folder / "a.tar.gz", members, "w:gz")
    writer = {"tar": write_tar, "zip": write_zip, "parquet": write_parquet}[kind]
    return writer(folder / f"a.{kind}", members)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet", "folder"])
def test_every_format_gives_every_image_in_order(kind: str, tmp_path: Path) -> None:
    outcome = read_sound(write_any(kind, tmp_path, IMAGES))
    expected = {Path(name).name: data for name, data in IMAGES.items()} if kind == "folder" else IMAGES
    assert list(outcome.images.items()) == list(expected.items())
    assert not outcome.ignored


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "folder"])
def test_sidecars_become_metadata_and_junk_is_counted(kind: str, tmp_path: Path) -> None:
    members = {
        "a.json": sidecar(camera=1),
        "a.jpg": b"a",
        "b.jpg": b"b",
        "b.jpg.json": b'{ "verbatim": "\xc3\xa4" }',
        "c.jpg": b"c",
        "d.json": b"{}",
        "Thumbs.db": b"x",
        "._c.jpg": b"x",
        "c.DAT": b"x",
    }
    outcome = read_sound(write_any(kind, tmp_path, members))
    assert outcome.images == {"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"}
    assert outcome.metadata == {"a.jpg": '{"camera": 1}', "b.jpg": '{ "verbatim": "ä" }', "c.jpg": None}
    assert outcome.ignored == {"Thumbs.db": 1, "._*": 1, ".dat": 1, "(unmatched .json sidecar)": 1}


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "folder"])
def test_an_image_beyond_the_limit_costs_itself_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", 1000)
    monkeypatch.setattr(limits, "MAX_SIDECAR_BYTES", 100)
    members = {"a.jpg": b"a", "b.jpg": bytes(2**20), "c.jpg": b"c", "c.json": bytes(101), "d.jpg": bytes(1000)}
    outcome = read_sound(write_any(kind, tmp_path, members))
    assert outcome.kinds == {"a.jpg": None, "b.jpg": "too_large", "c.jpg": None, "d.jpg": None}
    assert outcome.metadata["c.jpg"] is None
    assert outcome.ignored == {"(sidecar too large)": 1}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip", "a.parquet"])
@pytest.mark.parametrize("data", [b"", b"x", b"\x1f\x8b", b"PK", b"\0" * 511, b"not an archive at all\n" * 100])
def test_what_is_no_archive_is_a_broken_shard(name: str, data: bytes, scratch: Path) -> None:
    outcome = read_bytes(scratch, name, data)
    assert isinstance(outcome.error, ShardBroken)
    assert outcome.records == []


@pytest.mark.parametrize("kind", ["tar", "zip", "parquet"])
def test_a_shard_that_changed_since_it_was_listed_is_to_be_tried_again(kind: str, tmp_path: Path) -> None:
    shard = shard_of(write_any(kind, tmp_path, IMAGES))
    write_any(kind, tmp_path, {"other.jpg": b"x"})
    outcome = read_all(shard)
    assert isinstance(outcome.error, TransientError)
    assert outcome.records == []


@pytest.mark.parametrize("kind", ["tar", "zip", "parquet"])
def test_a_shard_that_is_overwritten_as_it_is_read_is_to_be_tried_again(kind: str, tmp_path: Path) -> None:
    members = {f"{number}.jpg": os.urandom(100_000) for number in range(30)}
    path = write_any(kind, tmp_path, members)
    reading = read(shard_of(path), Counter())
    next(reading)
    path.write_bytes(b"truncated")
    with pytest.raises(TransientError):
        list(reading)


def test_a_reader_that_is_left_early_closes_its_file(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", IMAGES)
    reading = read(shard_of(path), Counter())
    next(reading)
    assert str(path) in open_files()
    reading.close()
    assert str(path) not in open_files()


def open_files() -> set[str]:
    return {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


# Parquet


def parquet_bytes(columns: dict[str, Any] | pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"a", b"b"], pa.binary()),
        pa.array([b"a", b"b"], pa.large_binary()),
        pa.array([b"a", b"b"], pa.binary()).dictionary_encode(),
        pa.array([{"bytes": b"a", "path": "0.jpg"}, {"bytes": b"b", "path": None}]),
    ],
    ids=["binary", "large", "dictionary", "struct"],
)
def test_an_image_column_is_found_by_its_type(column: pa.Array, scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes({"picture": column, "file_name": ["0.jpg", "1.jpg"]}))
    assert outcome.error is None
    assert outcome.images == {"0.jpg": b"a", "1.jpg": b"b"}


def test_an_image_column_is_found_by_its_name_among_several(scratch: Path) -> None:
    columns = {"thumbnail": [b"t"], "image": [b"i"], "mask": [{"bytes": b"m", "path": "m"}], "n": [1]}
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes(columns))
    assert outcome.images == {"row/00000000": b"i"}
    assert outcome.metadata == {"row/00000000": '{"n": 1}'}


def test_the_other_columns_become_metadata(scratch: Path) -> None:
    table = pa.table(
        {
            "image": [b"x"],
            "path": ["a.jpg"],
            "when": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
            "date": [datetime(2024, 5, 1)],
            "nan": [math.nan],
            "box": [[0.5, 1.0]],
            "name": ["ä"],
            "text": pa.array([b"\xff"], pa.binary()).view(pa.string()),
        }
    )
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes(table))
    (record,) = outcome.records
    assert record.key == "a.jpg"
    assert json.loads(record.metadata or "") == {
        "when": "2023-11-14 22:13:20.123456789",
        "date": "2024-05-01 00:00:00",
        "nan": None,
        "box": [0.5, 1.0],
        "name": "ä",
        "text": None,
    }


def test_a_metadata_column_is_taken_verbatim(scratch: Path) -> None:
    data = parquet_bytes({"image": [b"x", b"y"], "metadata": ['{ "a":1}', None], "n": [1, 2]})
    outcome = read_bytes(scratch, "a.parquet", data)
    assert list(outcome.metadata.values()) == ['{ "a":1}', '{"metadata": null, "n": 2}']


def test_rows_that_share_a_path_get_ordinals_that_are_free(scratch: Path) -> None:
    data = parquet_bytes({"image": [b"0", b"1", b"2", b"3"], "path": ["a", "a", "a@2", "a"]})
    assert read_bytes(scratch, "a.parquet", data).images == {"a": b"0", "a@2": b"1", "a@2@2": b"2", "a@3": b"3"}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, b"b"], pa.binary()),
        pa.array([None, {"bytes": b"b", "path": "x"}]),
        pa.array([{"bytes": None, "path": "gone.jpg"}, {"bytes": b"b", "path": "x"}]),
    ],
    ids=["cell", "struct", "bytes"],
)
def test_a_null_image_is_a_failed_row(column: pa.Array, scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes({"image": column}))
    assert outcome.error is None
    assert [record.error.kind if record.error else None for record in outcome.records] == ["null", None]


def test_a_parquet_image_beyond_the_limit_costs_itself_alone(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", 1000)
    monkeypatch.setattr(limits, "MAX_SIDECAR_BYTES", 100)
    data = parquet_bytes({"image": [b"a", bytes(1001), b"c"], "note": ["", "", "n" * 101]})
    outcome = read_bytes(scratch, "a.parquet", data)
    assert list(outcome.kinds.values()) == [None, "too_large", None]
    assert outcome.records[2].metadata is None
    assert outcome.ignored == {"(sidecar too large)": 1}


@pytest.mark.parametrize(
    "columns", [{"image": ["a"]}, {"image": [1]}, {"n": [1], "x": [[b"a"]]}, {"s": [{"path": "x"}]}]
)
def test_a_parquet_file_without_images_is_named(columns: dict[str, Any], scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes(columns))
    assert isinstance(outcome.error, ShardBroken)
    assert next(iter(columns)) in str(outcome.error)


def test_a_parquet_file_of_no_rows_is_sound(scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes({"image": pa.array([], pa.binary())}))
    assert (outcome.records, outcome.error) == ([], None)


ROWS = {
    "image": [{"bytes": bytes([n]) * 300, "path": f"{n}.jpg"} for n in range(20)],
    "site": [f"s{n}" for n in range(20)],
}


def test_a_parquet_file_cut_anywhere_is_broken(scratch: Path) -> None:
    data = parquet_bytes(ROWS, row_group_size=5)
    for cut in range(0, len(data), 41):
        outcome = read_bytes(scratch, "a.parquet", data[:cut])
        assert isinstance(outcome.error, ShardBroken)
        assert outcome.records == []


def test_rows_before_damage_in_a_parquet_file_are_kept(scratch: Path) -> None:
    data = bytearray(parquet_bytes(ROWS, row_group_size=5))
    chunk = pq.read_metadata(io.BytesIO(data)).row_group(2).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    outcome = read_bytes(scratch, "a.parquet", bytes(data))
    assert isinstance(outcome.error, ShardBroken)
    assert list(outcome.images) == [f"{number}.jpg" for number in range(10)]


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.data())
def test_a_parquet_file_with_flipped_bits_never_escapes_the_contract(scratch: Path, data: st.DataObject) -> None:
    assert_contract_under_flips(scratch, "a.parquet", parquet_bytes(ROWS, row_group_size=5), data)


def test_a_parquet_row_group_is_not_read_whole(scratch: Path) -> None:
    path = scratch / "big.parquet"
    rows = 64
    with pq.ParquetWriter(path, pa.schema({"image": pa.binary()}), compression="none", write_batch_size=1) as writer:
        writer.write_table(pa.table({"image": [os.urandom(2**20) for _ in range(rows)]}), row_group_size=rows)
    before, most = pa.total_allocated_bytes(), 0
    with memory_below(12 * 2**20):
        for record in read(shard_of(path), Counter()):
            assert len(record.data or b"") == 2**20
            most = max(most, pa.total_allocated_bytes() - before)
            rows -= 1
    assert rows == 0
    assert most < 12 * 2**20


# Folders


def test_only_what_lies_directly_in_a_folder_is_of_its_shard(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.jpg": b"a", "sub/b.jpg": b"b", "c.tar": b"c", "f\udcfcr.jpg": b"f"})
    assert read_sound(tmp_path).images == {"a.jpg": b"a", "f\\xfcr.jpg": b"f"}


def test_more_images_than_are_fetched_at_a_time_all_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"{number:03d}.jpg": bytes(number) for number in range(100)}
    write_folder(tmp_path, members)
    assert read_sound(tmp_path).images == members
    monkeypatch.setattr(loose_images, "_HELD_BYTES", 50)
    assert read_sound(tmp_path).images == members


def added(folder: Path) -> None:
    (folder / "new.jpg").write_bytes(b"new")


def removed(folder: Path) -> None:
    (folder / "098.jpg").unlink()


def replaced(folder: Path) -> None:
    (folder / "000.jpg").write_bytes(b"new")


def annotated(folder: Path) -> None:
    (folder / "000.json").write_bytes(b"{}")


@pytest.mark.parametrize("change", [added, removed, replaced, annotated])
def test_a_folder_that_changes_is_to_be_tried_again(change: Callable[[Path], None], tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{number:03d}.jpg": b"x" for number in range(100)})
    shard = shard_of(tmp_path)
    reading = read(shard, Counter())
    next(reading)
    change(tmp_path)
    with pytest.raises(TransientError, match=str(tmp_path)):
        list(reading)
    assert isinstance(read_all(shard).error, TransientError)


def test_a_folder_is_not_changed_by_junk(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{number:03d}.jpg": b"x" for number in range(100)})
    reading = read(shard_of(tmp_path), Counter())
    next(reading)
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    assert len(list(reading)) == 99


# S3, and memory


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that are asked of S3."""
    ranges: list[tuple[int, int]] = []
    fetch = s3fs.core.S3File._fetch_range

    def spy(file: s3fs.core.S3File, start: int, end: int) -> bytes:
        ranges.append((start, end))
        return fetch(file, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", spy)
    return ranges


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet", "folder"])
def test_every_format_is_read_from_s3(kind: str, bucket: str, tmp_path: Path, s3: S3Server) -> None:
    path = write_any(kind, tmp_path, IMAGES)
    s3.filesystem().put(str(path), f"{bucket}/{path.name}", recursive=True)
    there, here = read_sound(f"{bucket}/{path.name}"), read_sound(path)
    assert (there.images, there.metadata, there.kinds) == (here.images, here.metadata, here.kinds)


def test_a_tar_on_s3_is_streamed(bucket: str, fetched: list[tuple[int, int]]) -> None:
    members = {f"{number}.jpg": bytes([number]) * 2**20 for number in range(24)}
    data = tar_bytes(members)
    store.put(f"{bucket}/a.tar", data)
    reading = read(shard_of(f"{bucket}/a.tar"), Counter())
    next(reading)
    assert sum(end - start for start, end in fetched) <= 8 * 2**20
    assert len(list(reading)) == 23
    assert sum(min(end, len(data)) - start for start, end in fetched) == len(data)
    assert fetched == sorted(fetched)


def test_other_files_in_a_tar_on_s3_are_skipped(bucket: str, fetched: list[tuple[int, int]]) -> None:
    members = {"a.jpg": b"a", "a.bin": bytes(30 * 2**20), "b.jpg": b"b"}
    store.put(f"{bucket}/a.tar", tar_bytes(members))
    outcome = read_sound(f"{bucket}/a.tar")
    assert outcome.images == {"a.jpg": b"a", "b.jpg": b"b"}
    assert outcome.ignored == {".bin": 1}
    assert sum(end - start for start, end in fetched) <= 16 * 2**20


def test_sidecars_at_the_far_end_of_a_zip_on_s3_cost_no_second_reading(
    bucket: str, fetched: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_STREAM", {**store._STREAM, "block_size": 2**16})
    pictures = {f"{number}.jpg": os.urandom(50_000) for number in range(40)}
    texts = {f"{number}.json": sidecar(number=number) for number in range(40)}
    data = zip_bytes(pictures | texts, zipfile.ZIP_STORED)
    store.put(f"{bucket}/a.zip", data)
    outcome = read_sound(f"{bucket}/a.zip")
    assert outcome.images == pictures
    assert outcome.metadata["7.jpg"] == '{"number": 7}'
    assert sum(end - start for start, end in fetched) < 1.2 * len(data)


@pytest.fixture
def large_on_s3(kind: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shard of many ranges; pauses between tries are short."""
    monkeypatch.setattr(retry, "_PAUSES", (0.01,) * 5)
    monkeypatch.setattr(store, "_STREAM", {**store._STREAM, "block_size": 2**16})
    path = write_any(kind, tmp_path, {f"{number}.jpg": os.urandom(100_000) for number in range(8)})
    if kind == "parquet":
        pq.write_table(pq.read_table(path), path, row_group_size=1)
    store.put(f"{bucket}/{path.name}", path.read_bytes())
    return f"{bucket}/{path.name}"


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet"])
def test_an_object_deleted_as_it_is_read_is_not_found(kind: str, large_on_s3: str, s3: S3Server) -> None:
    reading = read(shard_of(large_on_s3), Counter())
    next(reading)
    s3.filesystem().rm(large_on_s3)
    with pytest.raises(StorageError, match="not found"):
        list(reading)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet"])
def test_an_object_replaced_as_it_is_read_is_to_be_tried_again(kind: str, large_on_s3: str) -> None:
    reading = read(shard_of(large_on_s3), Counter())
    next(reading)
    store.put(large_on_s3, store.read_many([large_on_s3])[0][::-1])
    with pytest.raises(TransientError):
        list(reading)


@pytest.fixture
def troubled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception, range], None]:
    """Makes some of the requests of streams fail, counted from now on."""
    fetch = s3fs.core.S3File._fetch_range

    def trouble(error: Exception, at: range) -> None:
        requests = count()

        def fail(file: s3fs.core.S3File, start: int, end: int) -> bytes:
            if next(requests) in at:
                raise error
            return fetch(file, start, end)

        monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", fail)

    return trouble


TROUBLES = [OSError("SlowDown"), ConnectionResetError(), aiohttp.ClientPayloadError("cut")]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet"])
def test_passing_trouble_of_the_store_goes_unnoticed(
    kind: str, large_on_s3: str, troubled: Callable[[Exception, range], None]
) -> None:
    shard = shard_of(large_on_s3)
    expected = read_all(shard)
    assert (expected.error, len(expected.records)) == (None, 8)
    for error, at in product(TROUBLES, [0, 1, 6]):
        troubled(error, range(at, at + 5))
        assert read_all(shard) == expected


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet"])
def test_lasting_trouble_of_the_store_is_no_break_of_the_shard(
    kind: str, large_on_s3: str, troubled: Callable[[Exception, range], None]
) -> None:
    shard = shard_of(large_on_s3)
    for error, at in product(TROUBLES, [0, 1, 6]):
        troubled(error, range(at, 10**6))
        assert isinstance(read_all(shard).error, TransientError)


def test_a_large_tar_fits_in_little_memory(scratch: Path) -> None:
    path = scratch / "large.tar"
    block = os.urandom(2**20)
    with tarfile.open(path, "w") as tar:
        for number in range(200):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(block)
            tar.addfile(info, io.BytesIO(block))
    with memory_below(8 * 2**20):
        assert sum(1 for _ in read(shard_of(path), Counter())) == 200
    path.unlink()


def test_members_of_gigabytes_are_passed_over_in_little_memory(scratch: Path) -> None:
    path = scratch / "long.tar"
    with path.open("wb") as file:
        for name, size in [
            ("a.jpg", 1),
            ("a.bin", 2**31 + 1),
            ("b.jpg", 2**31 + 1),
            ("c.mp4", 2**32 + 1),
            ("d.jpg", 1),
        ]:
            info = tarfile.TarInfo(name)
            info.size = size
            file.write(info.tobuf())
            file.seek(-(-size // 512) * 512, os.SEEK_CUR)  # a hole: it takes no room on the disk
        file.truncate(file.tell() + 1024)
    with memory_below(8 * 2**20):
        outcome = read_sound(path)
    assert outcome.kinds == {"a.jpg": None, "b.jpg": "too_large", "c.mp4": "too_large", "d.jpg": None}
    assert outcome.ignored == {".bin": 1}
    path.unlink()


# Sidecars


@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
def test_sidecars_that_match_nothing_are_counted(kind: str, tmp_path: Path) -> None:
    members = {"a.json": b"{}", "b.jpg": b"b", "c.jpg": b"c", "c.json": b"{}", "d.json": b"{}"}
    outcome = read_sound(write_any(kind, tmp_path, members))
    assert outcome.metadata == {"b.jpg": None, "c.jpg": "{}"}
    assert outcome.ignored == {"(unmatched .json sidecar)": 2}


def test_an_unsorted_tar_counts_the_sidecars_that_it_cannot_match(tmp_path: Path) -> None:
    names = [*(f"{number}.jpg" for number in range(5)), *(f"{number}.json" for number in range(5))]
    members = dict.fromkeys(names, b"{}")
    outcome = read_sound(write_any("tar", tmp_path, members))
    assert outcome.metadata == {"0.jpg": None, "1.jpg": None, "2.jpg": None, "3.jpg": None, "4.jpg": None}
    assert outcome.ignored == {"(unmatched .json sidecar)": 5}
    for kind in ("zip", "folder"):
        outcome = read_sound(write_any(kind, tmp_path, members))
        assert set(outcome.metadata.values()) == {"{}"}
        assert not outcome.ignored


def test_names_of_webdataset_are_one_sample_up_to_the_first_dot(tmp_path: Path) -> None:
    members = {"000.input.jpg": b"i", "000.target.png": b"t", "000.json": b'{"k":0}', "001.json": b'{"k":1}'}
    members |= {"001.input.jpg": b"j", "2023.05.01_a.jpg": b"a", "2023.05.01_a.json": b"[1]", "2023.05.01_b.jpg": b"b"}
    outcome = read_sound(write_any("tar", tmp_path, members))
    assert outcome.metadata == {
        "000.input.jpg": '{"k":0}',
        "000.target.png": '{"k":0}',
        "001.input.jpg": '{"k":1}',
        "2023.05.01_a.jpg": "[1]",
        "2023.05.01_b.jpg": None,
    }
    assert not outcome.ignored


def test_names_that_begin_alike_keep_their_own_sidecars_however_many(tmp_path: Path) -> None:
    members = {}
    for number in range(100):
        members |= {f"2023.{number:03d}.jpg": b"x", f"2023.{number:03d}.json": f"[{number}]".encode()}
    outcome = read_sound(write_any("tar", tmp_path, members))
    assert list(outcome.metadata.values()) == [f"[{number}]" for number in range(100)]
    assert not outcome.ignored


@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
def test_sidecars_in_any_unicode_encoding_are_text_and_what_is_no_json_is_counted(kind: str, tmp_path: Path) -> None:
    members = {f"{number}.jpg": b"x" for number in range(4)}
    members |= {"0.json": b'\xef\xbb\xbf{"k":0}', "1.json": '{"k":"ä"}'.encode("utf-16"), "2.json": b"k: 2"}
    outcome = read_sound(write_any(kind, tmp_path, dict(sorted(members.items()))))
    assert outcome.metadata == {"0.jpg": '{"k":0}', "1.jpg": '{"k":"ä"}', "2.jpg": None, "3.jpg": None}
    assert outcome.ignored == {"(sidecar that is no JSON)": 1}


# What is no picture of a card, and what is no archive


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_junk_folders_in_archives_give_no_rows(kind: str, tmp_path: Path) -> None:
    junk = ["#recycle", ".Trash-1000", "@eaDir", "RECYCLER"]
    members = {f"cam/{folder}/IMG_1.JPG": b"x" for folder in junk} | {
        "cam\\#recycle\\1.jpg": b"x",
        "recycle/1.jpg": b"r",
    }
    outcome = read_sound(write_any(kind, tmp_path, members))
    assert outcome.images == {"recycle/1.jpg": b"r"}
    assert outcome.ignored == {"#recycle": 2, ".Trash-1000": 1, "@eaDir": 1, "RECYCLER": 1}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_in_an_archive_is_a_row_that_says_so(kind: str, tmp_path: Path) -> None:
    inner = zip_bytes({"IMG_1.JPG": b"x"})
    outcome = read_sound(
        write_any(kind, tmp_path, {"card-a.zip": inner, "b.tar.gz": b"", "@eaDir/c.zip": b"", "1.jpg": b"1"})
    )
    assert outcome.kinds == {"card-a.zip": "nested_archive", "b.tar.gz": "nested_archive", "1.jpg": None}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.tar", zip_bytes({"a.jpg": b"a"}), "is a zip archive, not tar"),
        ("a.tar", b"BZh91AY&SY", "is compressed by bzip2"),
        ("a.tar.gz", b"<!DOCTYPE html><title>404 Not Found</title>", "is a web page"),
        ("a.zip", tar_bytes({"a.jpg": b"a"}), "is a tar archive, not zip"),
        ("a.parquet", b'{"error": "not found"}', "is a JSON document, not parquet"),
        ("a.zip", b"", "is empty"),
    ],
)
def test_what_is_something_else_is_called_by_its_name(name: str, data: bytes, words: str, scratch: Path) -> None:
    outcome = read_bytes(scratch, name, data)
    assert isinstance(outcome.error, ShardBroken)
    assert words in str(outcome.error)


def test_an_empty_path_in_parquet_is_no_key(scratch: Path) -> None:
    data = parquet_bytes({"image": [{"bytes": b"a", "path": ""}, {"bytes": b"b", "path": "b.jpg"}]})
    assert list(read_bytes(scratch, "a.parquet", data).images) == ["row/00000000", "b.jpg"]


def test_other_columns_that_hold_images_are_counted(scratch: Path) -> None:
    jpeg = b"\xff\xd8\xff\xe0"
    data = parquet_bytes({"thumbnail": [jpeg, jpeg], "photo": [jpeg + b"0", jpeg + b"1"], "path": ["a", "b"]})
    outcome = read_bytes(scratch, "a.parquet", data)
    assert outcome.images == {"a": jpeg + b"0", "b": jpeg + b"1"}
    assert outcome.ignored == {"(column 'thumbnail'; 'photo' was taken)": 2}


def test_a_sidecar_that_cannot_be_read_is_counted_and_costs_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.jpg", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        link = tarfile.TarInfo("b.json")
        link.type, link.linkname = tarfile.LNKTYPE, "missing.json"
        tar.addfile(link)
    outcome = read_sound(path)
    assert (outcome.metadata, outcome.ignored) == ({"a.jpg": None, "b.jpg": None}, {UNREADABLE: 1})

    def encrypt(archive: zipfile.ZipFile) -> None:
        archive.filelist[1].flag_bits = 1

    (tmp_path / "a.zip").write_bytes(zip_bytes({"a.jpg": b"x", "a.json": b"{}"}, edit=encrypt))
    outcome = read_sound(tmp_path / "a.zip")
    assert (outcome.metadata, outcome.ignored) == ({"a.jpg": None}, {UNREADABLE: 1})
