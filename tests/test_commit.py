import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import s3fs
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import local, storage
from pipeline.chunks import Chunk
from pipeline.commit import Assembler, Footer, commit, plan, read_footer
from pipeline.decode import Facts
from pipeline.errors import OutputConflict, StorageError, TransientError
from pipeline.fingerprint import Fingerprint
from pipeline.predict import Predictions
from pipeline.rows import Columns, image_rows, with_predictions
from pipeline.shards import Shard

MARK = Fingerprint({"weights_sha256": "ab", "top_k": 2})
COLUMNS = Columns(
    classes=tuple(f"species {index}" for index in range(40)),
    embedding_size=128,
    feature_shapes={"stage4": (2, 1, 2)},
    top_k=2,
    probabilities=True,
    embedding="float32",
)


def shard(output: str, name: str = "site=fen/0007.tar") -> Shard:
    return Shard(f"s3://archive/{name}", "tar", 12_345, "12345-e1", f"{output}/{name}.parquet")


def chunk(of: Shard, index: int = 0, last: bool = True, images: int = 3, columns: Columns = COLUMNS) -> Chunk:
    """Images of which every third failed and the others are as varied as real ones."""
    rng = np.random.default_rng(index)
    first = index * images
    facts = [
        Facts("failed", "empty: the file has no bytes")
        if number % 3 == 2
        else Facts(
            "ok",
            None,
            rng.bytes(32),
            640,
            480,
            "jpeg",
            datetime(2024, 5, 17) + timedelta(minutes=number),
            51.5,
            -0.25,
            "RECONYX",
        )
        for number in range(first, first + images)
    ]
    usable = sum(fact.status == "ok" for fact in facts)
    predictions = Predictions(
        probabilities=rng.dirichlet([0.1] * len(columns.classes), size=usable).astype(np.float32),
        energy=rng.normal(size=usable).astype(np.float32),
        embedding=rng.normal(size=(usable, 128)).astype(np.float32),
        features={"stage4": rng.normal(size=(usable, 2, 1, 2)).astype(np.float16)},
    )
    keys = [f"DCIM/{number}.jpg" for number in range(first, first + images)]
    rows = image_rows(of.uri, keys, facts, ['{"site": "fen"}'] * images)
    rows = with_predictions(rows, predictions if usable else None, columns)
    return Chunk(of, index, last, rows, np.empty((0, 3, 64, 64), np.uint8), 100, {}, None, {".mp4": 2} if last else {})


class TestAssembler:
    # Of three shards, how many chunks each has.
    counts = st.lists(st.integers(1, 4), min_size=3, max_size=3)

    @staticmethod
    def of_these(counts: list[int]) -> list[Chunk]:
        blank = chunk(shard("out"), images=1)
        return [
            replace(blank, shard=shard("out", f"{name}.tar"), index=index, last=index == count - 1)
            for name, count in enumerate(counts)
            for index in range(count)
        ]

    @settings(deadline=None)  # machines are busy at times
    @given(counts, st.randoms())
    def test_gives_each_shard_once_and_whole_in_whatever_order_its_chunks_come(
        self, counts: list[int], random: Any
    ) -> None:
        chunks = self.of_these(counts)
        random.shuffle(chunks)
        assembler = Assembler()
        given_back = [found for each in chunks if (found := assembler.add(each))]
        assert sorted(found[0].shard.uri for found in given_back) == sorted({each.shard.uri for each in chunks})
        for found in given_back:
            assert {each.shard for each in found} == {found[0].shard}
            assert [each.index for each in found] == list(range(len(found)))
            assert [each.last for each in found] == [False] * (len(found) - 1) + [True]

    @settings(deadline=None)  # machines are busy at times
    @given(counts, st.randoms())
    def test_gives_no_shard_incomplete_however_often_its_chunks_come(self, counts: list[int], random: Any) -> None:
        chunks = self.of_these(counts) * 2
        random.shuffle(chunks)
        assembler = Assembler()
        given_back = [found for each in chunks if (found := assembler.add(each))]
        assert {found[0].shard.uri for found in given_back} == {each.shard.uri for each in chunks}
        assert all([each.index for each in found] == list(range(len(found))) and found[-1].last for found in given_back)

    def test_a_repeated_chunk_is_not_another_one(self) -> None:
        first, second, third = self.of_these([3])
        assembler = Assembler()
        assert [assembler.add(each) for each in (third, first, first, third)] == [None] * 4
        assert assembler.add(second) == [first, second, third]

    def test_what_came_of_a_shard_that_failed_is_forgotten(self) -> None:
        first, second, other, last = self.of_these([2, 2])
        assembler = Assembler()
        assert assembler.add(first) is None
        assert assembler.add(other) is None
        assembler.drop(first.shard)
        assembler.drop(shard("out", "never-seen.tar"))
        assert assembler.add(second) is None
        assert assembler.add(last) == [other, last]


class TestTheFile:
    """A result of two chunks and three row groups, as others read it."""

    @pytest.fixture(scope="class")
    @classmethod
    def chunks(cls, tmp_path_factory: pytest.TempPathFactory) -> list[Chunk]:
        of = shard(str(tmp_path_factory.mktemp("results")))
        return [chunk(of, 0, False, images=2400), chunk(of, 1, True, images=2400)]

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls, chunks: list[Chunk]) -> Path:
        commit(chunks, COLUMNS, MARK)
        return Path(chunks[0].shard.output)

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls, chunks: list[Chunk]) -> list[dict[str, Any]]:
        return [row for chunk in chunks for row in chunk.rows.to_pylist()]

    def test_is_read_by_arrow_as_it_was_made(self, path: Path, rows: list[dict[str, Any]]) -> None:
        dataset = pyarrow.dataset.dataset(path.parents[1], partitioning="hive")
        assert dataset.to_table().drop_columns("site").to_pylist() == rows
        assert dataset.to_table().column("site").unique().to_pylist() == ["fen"]
        assert pq.read_schema(path).remove_metadata().equals(COLUMNS.schema)

    def test_is_read_by_duckdb_as_it_was_made(self, path: Path, rows: list[dict[str, Any]]) -> None:
        found = duckdb.sql(
            f"select * exclude (site) from read_parquet('{path.parents[1]}/**/*.parquet', hive_partitioning = true)"
        )
        assert found.columns == list(rows[0])
        for name, values in zip(found.columns, zip(*found.fetchall(), strict=True), strict=True):
            expected = [row[name] for row in rows]
            # Of a column of arrays DuckDB makes tuples.
            assert [list(value) if isinstance(value, tuple) else value for value in values] == expected, name

    def test_is_read_by_polars_as_it_was_made(self, path: Path, rows: list[dict[str, Any]]) -> None:
        assert polars.read_parquet(path, hive_partitioning=False).to_dicts() == rows

    def test_compresses_vectors_of_floats_byte_by_byte(self, path: Path) -> None:
        group = pq.read_metadata(path).row_group(0)
        columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
        assert {column.compression for column in columns.values()} == {"ZSTD"}
        split = {name.partition(".")[0] for name, column in columns.items() if "BYTE_STREAM_SPLIT" in column.encodings}
        assert split == {"probabilities", "embedding"}
        words = {name.partition(".")[0] for name, column in columns.items() if "RLE_DICTIONARY" in column.encodings}
        assert words == {"status", "format", "camera_make", "camera_model", "camera_serial", "species"}

    @pytest.mark.parametrize("name", ["captured_at", "species", "probability", "key", "status", "latitude", "energy"])
    def test_tells_for_each_row_group_what_a_query_can_skip(
        self, path: Path, rows: list[dict[str, Any]], name: str
    ) -> None:
        metadata = pq.read_metadata(path)
        assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [2048, 2048, 704]
        for index, start in enumerate((0, 2048, 4096)):
            group = metadata.row_group(index)
            column = next(
                group.column(at) for at in range(group.num_columns) if group.column(at).path_in_schema == name
            )
            values = [row[name] for row in rows[start : start + 2048] if row[name] is not None]
            found = (column.statistics.min, column.statistics.max)
            # float32 statistics come back as Python floats, of the same value.
            assert found == (min(values), max(values))

    def test_names_its_classes_its_columns_and_its_makers(self, path: Path) -> None:
        metadata = pq.read_metadata(path).metadata
        assert json.loads(metadata[b"trapline.classes"]) == list(COLUMNS.classes)
        assert metadata[b"trapline.version"]
        described = {field.name for field in pq.read_schema(path) if (field.metadata or {}).get(b"description")}
        assert described == set(COLUMNS.schema.names)

    def test_its_footer_says_what_commit_said(
        self, path: Path, chunks: list[Chunk], rows: list[dict[str, Any]]
    ) -> None:
        footer = read_footer(str(path))
        assert footer is not None
        assert footer == commit(chunks, COLUMNS, MARK)
        assert (footer.uri, footer.identity, footer.size) == ("s3://archive/site=fen/0007.tar", "12345-e1", 12_345)
        assert footer.fingerprint == MARK
        assert footer.images == {"ok": 3200, "salvaged": 0, "failed": 1600}
        assert footer.reasons == {"empty": 1600}
        assert sum(footer.species.values()) == 3200
        assert footer.species["species 7"] == sum(row["species"] == "species 7" for row in rows)
        assert list(footer.species.values()) == sorted(footer.species.values(), reverse=True)
        assert footer.ignored == {".mp4": 2}
        assert footer.broken is None

    def test_says_why_its_shard_broke_off(self, tmp_path: Path) -> None:
        of = shard(str(tmp_path))
        footer = commit([replace(chunk(of), broken="0007.tar: »cut«")], COLUMNS, MARK)
        assert footer.broken == "0007.tar: »cut«"
        assert read_footer(of.output) == footer

    def test_of_an_empty_shard_has_no_rows_and_a_footer(self, tmp_path: Path) -> None:
        of = shard(str(tmp_path))
        footer = commit([chunk(of, images=0)], COLUMNS, MARK)
        assert footer.images == {"ok": 0, "salvaged": 0, "failed": 0}
        assert read_footer(of.output) == footer
        assert duckdb.sql(f"select count(*) from '{of.output}'").fetchall() == [(0,)]

    def test_with_embeddings_of_half_width_is_read_by_all(self, tmp_path: Path) -> None:
        columns = replace(COLUMNS, embedding="float16")
        of = shard(str(tmp_path))
        commit([chunk(of, columns=columns)], columns, MARK)
        expected = pq.read_table(of.output).column("embedding").to_pylist()
        assert expected[2] is None
        assert len(expected[0]) == 128
        assert polars.read_parquet(of.output).get_column("embedding").to_list() == expected
        found = duckdb.sql(f"select embedding from '{of.output}'").fetchall()
        assert [None if value is None else list(value) for (value,) in found] == expected

    def test_replaces_what_was_there(self, tmp_path: Path) -> None:
        of = shard(str(tmp_path))
        commit([chunk(of, images=9)], COLUMNS, MARK)
        commit([chunk(of, images=2)], COLUMNS, MARK)
        assert pq.read_metadata(of.output).num_rows == 2
        assert list(Path(of.output).parent.iterdir()) == [Path(of.output)]


class TestReadFooter:
    @staticmethod
    def damaged() -> bytes:
        """Parquet by its first and last bytes, with nonsense for a footer."""
        sink = io.BytesIO()
        pq.write_table(pa.table({"a": [1]}), sink)
        data = sink.getvalue()
        length = int.from_bytes(data[-8:-4], "little")
        return data[: -8 - length] + b"\xff" * length + data[-8:]

    @staticmethod
    def by_others(metadata: dict[str, str]) -> bytes:
        sink = io.BytesIO()
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), sink)
        return sink.getvalue()

    def test_takes_no_other_file_for_a_result(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        halves = {"trapline.shard": "{}", "trapline.fingerprint": "{}"}
        others = [b"", b"x" * 100, self.damaged(), *map(self.by_others, ({}, {"trapline.shard": "{"}, halves))]
        for data in others:
            path.write_bytes(data)
            assert read_footer(str(path)) is None

    def test_does_not_take_a_missing_file_or_a_broken_line_for_one_of_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(StorageError, match=r"gone\.parquet: not found"):
            read_footer(str(tmp_path / "gone.parquet"))
        commit([chunk(shard(str(tmp_path)))], COLUMNS, MARK)
        monkeypatch.setattr(storage, "_PAUSES", ())

        def reset(file: storage.StoreFile, size: int = -1) -> bytes:
            raise TransientError("connection reset")

        monkeypatch.setattr(storage.StoreFile, "read", reset)
        with pytest.raises(TransientError, match="connection reset"):
            read_footer(shard(str(tmp_path)).output)

    @pytest.mark.parametrize("broken", [None, "cut"])
    def test_metadata_and_back_is_the_same(self, broken: str | None) -> None:
        footer = Footer("s3://b/ü.tar", "1-e", MARK, {"ok": 1}, {"empty": 2}, {"wren": 1}, {".mp4": 3}, broken, 7)
        metadata = {name.encode(): value.encode() for name, value in footer.to_metadata().items()}
        assert Footer.from_metadata(metadata) == footer


class TestPlan:
    @pytest.fixture(params=["local", "s3"])
    def output(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return f"{request.getfixturevalue('bucket')}/results" if request.param == "s3" else str(tmp_path / "results")

    def test_without_an_output_everything_is_to_do(self, output: str) -> None:
        shards = [shard(output, "a.tar"), shard(output, "b.tar")]
        found = plan(shards, output, MARK, replace=False)
        assert (found.todo, found.done) == (shards, [])

    def test_what_stands_is_done_and_what_changed_is_to_do_again(self, output: str) -> None:
        same, changed, new = (shard(output, f"site=fen/{name}.tar") for name in ("same", "changed", "new"))
        footers = {each: commit([chunk(each)], COLUMNS, MARK) for each in (same, changed)}
        changed = replace(changed, identity="12345-e2")
        found = plan([changed, new, same], output, MARK, replace=False)
        assert (found.todo, found.done) == ([changed, new], [footers[same]])


class TestPlanOnConflict:
    def test_results_computed_otherwise_stop_the_run(self, tmp_path: Path) -> None:
        output = str(tmp_path)
        shards = [shard(output, f"{name}.tar") for name in "abc"]
        for each, top_k in zip(shards, (2, 3, 3), strict=True):
            commit([chunk(each)], COLUMNS, Fingerprint({**MARK.facts, "top_k": top_k}))
        message = (
            rf"^{output}: 2 of 3 results were written otherwise \(top_k: 3 -> 2\); choose another OUTPUT.*--replace$"
        )
        with pytest.raises(OutputConflict, match=message):
            plan(shards, output, MARK, replace=False)
        found = plan(shards, output, MARK, replace=True)
        assert found.todo == shards[1:]
        assert [footer.uri for footer in found.done] == [shards[0].uri]

    @pytest.mark.parametrize("may_replace", [False, True])
    def test_rows_of_another_shard_are_never_in_the_way_of_ours(self, tmp_path: Path, may_replace: bool) -> None:
        ours = shard(str(tmp_path))
        commit([chunk(replace(ours, uri="s3://other/0007.tar"))], COLUMNS, MARK)
        with pytest.raises(
            OutputConflict, match=r"holds the rows of s3://other/0007\.tar, not of s3://archive/.*; choose"
        ):
            plan([ours], str(tmp_path), MARK, replace=may_replace)

    @pytest.mark.parametrize("may_replace", [False, True])
    @pytest.mark.parametrize("data", [b"somebody's", TestReadFooter.damaged()])
    def test_nor_is_a_file_that_is_not_ours(self, tmp_path: Path, may_replace: bool, data: bytes) -> None:
        ours = shard(str(tmp_path), "a.tar")
        Path(ours.output).write_bytes(data)
        with pytest.raises(OutputConflict, match=r"a\.tar\.parquet: not written by Trapline, and in the way; move it"):
            plan([ours], str(tmp_path), MARK, replace=may_replace)

    def test_other_files_in_output_are_nobodys_business(self, tmp_path: Path) -> None:
        ours = shard(str(tmp_path), "a.tar")
        footer = commit([chunk(ours)], COLUMNS, MARK)
        (tmp_path / local.temporary_name()).write_bytes(b"left behind by a power cut")
        (tmp_path / "notes.txt").write_bytes(b"x")
        (tmp_path / "other.parquet").write_bytes(b"x")
        found = plan([ours], str(tmp_path), MARK, replace=False)
        assert (found.todo, found.done) == ([], [footer])


class TestWhatPlanReads:
    """A nightly run over a million done shards reads their footers, and nothing else."""

    @pytest.fixture
    def commit_some(self) -> Callable[[str], list[Shard]]:
        def make(output: str) -> list[Shard]:
            shards = [shard(output, f"{name}.tar") for name in "abc"]
            for each in shards:
                commit([chunk(each, images=2500)], COLUMNS, MARK)
            return shards

        return make

    def test_of_local_files_is_their_ends(
        self, tmp_path: Path, commit_some: Callable[[str], list[Shard]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shards = commit_some(str(tmp_path))
        read = storage.StoreFile.read
        total = 0

        def counted(file: storage.StoreFile, size: int = -1) -> bytes:
            nonlocal total
            data = read(file, size)
            total += len(data)
            return data

        monkeypatch.setattr(storage.StoreFile, "read", counted)
        assert len(plan(shards, str(tmp_path), MARK, replace=False).done) == 3
        assert min(Path(each.output).stat().st_size for each in shards) > 1_000_000
        assert 0 < total <= 3 * 2 * 65_536

    def test_of_objects_is_their_ends_in_a_few_requests(
        self, bucket: str, commit_some: Callable[[str], list[Shard]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shards = commit_some(bucket)
        call = s3fs.S3FileSystem._call_s3
        requests: list[tuple[str, int]] = []

        async def logged(fs: s3fs.S3FileSystem, method: str, *args: Any, **kwargs: Any) -> Any:
            first, _, end = kwargs.get("Range", "").removeprefix("bytes=").partition("-")
            requests.append((method, int(end) - int(first) + 1 if end else 0))
            return await call(fs, method, *args, **kwargs)

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", logged)
        assert len(plan(shards, bucket, MARK, replace=False).done) == 3
        assert {size for method, size in requests if method == "get_object"} == {65_536}
        # One listing, and of each result its size and its end.
        assert Counter(method for method, _ in requests) == {"list_objects_v2": 1, "head_object": 3, "get_object": 3}
