import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tests.support.rows import COLUMNS, MARK, chunk, shard
from trapline.results.footer import find
from trapline.run.messages import EndOfShard, PredictedChunk
from trapline.run.writer import commit


class TestTheFile:
    """A result of two chunks and three row groups, as others read it."""

    @pytest.fixture(scope="class")
    @classmethod
    def chunks(cls, tmp_path_factory: pytest.TempPathFactory) -> list[PredictedChunk]:
        of = shard(str(tmp_path_factory.mktemp("results")))
        return [chunk(of, 0, False, images=2400), chunk(of, 1, True, images=2400)]

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls, chunks: list[PredictedChunk]) -> Path:
        commit(chunks, COLUMNS, MARK)
        return Path(chunks[0].shard.output)

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls, chunks: list[PredictedChunk]) -> list[dict[str, Any]]:
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
        assert words == {
            "shard",
            "media_type",
            "status",
            "format",
            "camera_make",
            "camera_model",
            "camera_serial",
            "species",
        }

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
        self, path: Path, chunks: list[PredictedChunk], rows: list[dict[str, Any]]
    ) -> None:
        footer = find(str(path))
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
        footer = commit([replace(chunk(of), end=EndOfShard(broken="0007.tar: »cut«"))], COLUMNS, MARK)
        assert footer.broken == "0007.tar: »cut«"
        assert find(of.output) == footer

    def test_of_an_empty_shard_has_no_rows_and_a_footer(self, tmp_path: Path) -> None:
        of = shard(str(tmp_path))
        footer = commit([chunk(of, images=0)], COLUMNS, MARK)
        assert footer.images == {"ok": 0, "salvaged": 0, "failed": 0}
        assert find(of.output) == footer
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
