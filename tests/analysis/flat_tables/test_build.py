"""The flat tables of an archive, night after night."""

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.result_files import MARK, Planted, columns, write_result
from trapline.analysis import dataset
from trapline.analysis.flat_tables import build
from trapline.analysis.flat_tables.build import Account
from trapline.decoding.crops import Box
from trapline.errors import OutputConflict, UsageError
from trapline.results import ledger
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

CLASSES = ("wren", "owl", "heron")
OF = columns(CLASSES, 4)
START = datetime(2024, 5, 17, 3)


def images(count: int, first: int = 0) -> list[Planted]:
    """Pictures of rising times, and one without any prediction at the end."""
    good = [
        Planted(
            f"DCIM/{number}.jpg",
            (number % 3, 1.5, 0),
            [number] * 4,
            '{"a": 1}',
            facts={"captured_at": START + timedelta(minutes=first + number), "content_sha256": bytes([number]) * 32},
        )
        for number in range(count - 1)
    ]
    return [*good, Planted("broken.jpg", status="failed", error="empty: it's »empty«")]


def shard(base: object, name: str, count: int = 4, first: int = 0) -> None:
    write_result(f"{base}/results", f"s3://in/{name}", name, images(count, first), OF)


def run(base: object, images_per_file: int = 8, **options: Any) -> Account:
    return build.build(dataset.find(f"{base}/results"), f"{base}/tables", images_per_file=images_per_file, **options)


def rows(base: object, what: str = "*", more: str = "") -> list[Any]:
    return duckdb.sql(f"SELECT {what} FROM '{base}/tables/*.parquet' {more}").fetchall()


def files(base: Path) -> dict[str, int]:
    """The files and what would change if one were written again."""
    return {path.name: path.stat().st_mtime_ns for path in sorted((base / "tables").iterdir())}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Of six shards of four images: three files."""
    for number in range(6):
        shard(tmp_path, f"site={number // 2:03}/{number}.tar", first=10 - number)
    return tmp_path


class TestTheRows:
    def test_are_those_of_the_results_flat(self, archive: Path) -> None:
        account = run(archive)
        assert account == Account(files=3, unchanged=0, removed=0, shards=6, images=24, rows=24)
        want = duckdb.sql(f"""
            SELECT image_uri, shard, key, status, error, lower(hex(content_sha256)), captured_at::TIMESTAMP, species,
                probability, energy, top_k[1].species, top_k[1].probability, top_k[2].species, top_k[2].probability,
                parse_path(filename)[-2] || '/' || parse_filename(filename), parse_path(filename)[-2]
            FROM read_parquet('{archive}/results/**/*.parquet', hive_partitioning = false, filename = true)
        """).fetchall()
        have = rows(
            archive,
            "image_uri, shard, key, status, error, content_sha256, captured_at, species, probability, energy, species_1, "
            "probability_1, species_2, probability_2, result, folder",
        )
        assert Counter(have) == Counter(want)

    def test_have_plain_types_and_names_that_every_engine_takes(self, archive: Path) -> None:
        run(archive)
        schema = pq.read_schema(archive / "tables/images-00001.parquet")
        kinds = {pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.timestamp("us")}
        assert {*schema.types} <= kinds
        assert all(name.isascii() and name.isidentifier() and name == name.lower() for name in schema.names)
        assert {"embedding", "probabilities", "top_k", "metadata", "identity"}.isdisjoint(schema.names)

    def test_of_crops_have_their_box_in_four_columns(self, tmp_path: Path) -> None:
        box = Box("animal", 0.75, (0.25, 0.5, 0.125, 0.0625))
        mark = Fingerprint({**MARK.facts, "detections_sha256": "ab"})
        planted = [Planted("1.jpg"), Planted("1.jpg", (1, 0, 0), [1] * 4, crop=1, box=box), Planted("2.jpg")]
        write_result(f"{tmp_path}/results", "s3://in/a.tar", "a.tar", planted, columns(CLASSES, 4, crops=True), mark)
        assert run(tmp_path) == Account(files=1, shards=1, images=2, rows=3)
        assert rows(tmp_path, "key, box_left, box_top, box_width, box_height, species", "WHERE crop = 1") == [
            ("1.jpg", 0.25, 0.5, 0.125, 0.0625, "wren")
        ]
        assert rows(tmp_path, "count(*)", "WHERE crop IS NULL AND box_left IS NULL") == [(2,)]

    def test_of_loose_photographs_are_in_their_folder(self, tmp_path: Path) -> None:
        write_result(f"{tmp_path}/results", "s3://in/fen/c1", "fen/c1/images", images(2), OF, loose=True)
        shard(tmp_path, "top.tar")
        run(tmp_path)
        assert set(rows(tmp_path, "folder, result")) == {("fen/c1", "fen/c1/images.parquet"), ("", "top.tar.parquet")}


class TestANight:
    def test_that_changed_nothing_writes_nothing(self, archive: Path) -> None:
        run(archive)
        before = files(archive)
        assert run(archive) == Account(files=3, unchanged=3, shards=6, images=24, rows=24)
        assert files(archive) == before

    def test_that_changed_a_shard_writes_its_file_and_reads_no_other_result(self, archive: Path) -> None:
        run(archive)
        before = files(archive)
        shard(archive, "site=001/3.tar", count=9)
        # The rows of the others are in the tables already.
        unread = archive / "results/site=001/2.tar.parquet"
        stamp = unread.stat()
        end = unread.read_bytes()
        assert run(archive) == Account(files=3, unchanged=2, shards=6, images=29, rows=29)
        after = files(archive)
        assert {name for name in before if before[name] != after[name]} == {"images-00002.parquet"}
        assert (unread.stat().st_mtime_ns, unread.read_bytes()) == (stamp.st_mtime_ns, end)
        assert rows(archive, "count(*)", "WHERE shard = 's3://in/site=001/3.tar'") == [(9,)]
        assert rows(archive, "count(*), count(DISTINCT image_uri)") == [(29, 29)]

    def test_keeps_the_rows_of_a_shard_that_did_not_change_without_reading_its_result(self, archive: Path) -> None:
        run(archive)
        unchanged = archive / "results/site=001/2.tar.parquet"
        ledger.remember(f"{archive}/results", ledger.survey(f"{archive}/results"))
        shard(archive, "site=001/3.tar", count=9)
        found = dataset.find(f"{archive}/results")
        unchanged.unlink()
        build.build(found, f"{archive}/tables", images_per_file=8)
        assert rows(archive, "count(*)", "WHERE shard = 's3://in/site=001/2.tar'") == [(4,)]

    def test_that_brought_shards_fills_the_last_file_and_then_others(self, archive: Path) -> None:
        shard(archive, "site=009/6.tar")
        run(archive)
        before = files(archive)
        for name in ("site=000/7.tar", "site=001/8.tar"):
            shard(archive, name)
        assert run(archive) == Account(files=5, unchanged=3, shards=9, images=36, rows=36)
        after = files(archive)
        assert {name for name in after if before.get(name) != after[name]} == {
            "images-00004.parquet", "images-00005.parquet",
        }  # fmt: skip
        assert rows(archive, "count(*), count(DISTINCT image_uri)") == [(36, 36)]

    def test_that_lost_shards_removes_their_rows_and_files_without_any(self, archive: Path) -> None:
        run(archive)
        for number in (0, 1, 2):
            (archive / f"results/site={number // 2:03}/{number}.tar.parquet").unlink()
        assert run(archive) == Account(files=2, unchanged=1, removed=1, shards=3, images=12, rows=12)
        assert set(rows(archive, "folder")) == {("site=001",), ("site=002",)}

    def test_of_results_under_other_names_moves_no_shard_to_another_file(self, archive: Path) -> None:
        run(archive)
        write_result(f"{archive}/results", "s3://in/site=000/0.tar", "zzz", images(4), OF)
        (archive / "results/site=000/0.tar.parquet").unlink()
        assert run(archive) == Account(files=3, unchanged=2, shards=6, images=24, rows=24)
        found = rows(archive, "DISTINCT parse_filename(filename)", "WHERE result = 'zzz.parquet'")
        assert found == [("images-00001.parquet",)]

    def test_after_a_killed_one_tidies_what_it_left(self, archive: Path) -> None:
        run(archive)
        left = archive / "tables/_0123456789abcdef0123456789abcdef.partial"
        left.write_bytes(b"PAR1")
        (archive / "tables/images-00002.parquet").unlink()
        assert run(archive) == Account(files=3, unchanged=2, shards=6, images=24, rows=24)
        assert not left.exists()
        assert rows(archive, "count(*), count(DISTINCT image_uri)") == [(24, 24)]

    def test_of_a_bucket(self, bucket: str, archive: Path) -> None:
        found = dataset.find(f"{archive}/results")
        wanted = Account(files=1, shards=6, images=24, rows=24)
        assert build.build(found, f"{bucket}/tables") == wanted
        wanted.unchanged = 1
        assert build.build(found, f"{bucket}/tables") == wanted
        with store.open_tail(f"{bucket}/tables/images-00001.parquet") as stream:
            assert pq.ParquetFile(stream).metadata.num_rows == 24


class TestRefusals:
    def test_tables_of_other_options_are_replaced_on_request_only(self, archive: Path) -> None:
        run(archive)
        with pytest.raises(OutputConflict, match="deployment_from"):
            run(archive, deployment_from=["site={site}"])
        assert run(archive, deployment_from=["site={site}"], replace=True).unchanged == 0
        assert rows(archive, "count(*), count(DISTINCT image_uri)") == [(24, 24)]

    def test_a_foreign_file_would_be_taken_for_a_part(self, archive: Path) -> None:
        (archive / "tables").mkdir()
        pq.write_table(pa.table({"a": [1]}), archive / "tables/mine.parquet")
        with pytest.raises(OutputConflict, match=r"mine\.parquet: not written by `trapline tables`"):
            run(archive)

    def test_a_shard_in_two_results_would_be_there_twice(self, archive: Path) -> None:
        write_result(f"{archive}/results", "s3://in/site=000/0.tar", "copy.tar", images(4), OF)
        with pytest.raises(OutputConflict, match=r"two results hold the rows of s3://in/site=000/0\.tar"):
            run(archive)

    def test_tables_among_results_would_be_taken_for_results(self, archive: Path) -> None:
        with pytest.raises(UsageError, match="must be a folder of its own"):
            build.build(dataset.find(f"{archive}/results"), f"{archive}/results/tables")
