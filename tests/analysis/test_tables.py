from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trapline.analysis import tables
from trapline.analysis.tables import Origin
from trapline.errors import OutputConflict, StorageError, UsageError
from trapline.results.fingerprint import Fingerprint
from trapline.results.ledger import Result
from trapline.storage import store

SCHEMA = pa.schema([("name", pa.string()), ("n", pa.int32()), ("p", pa.list_(pa.float32()))])
MARK = Fingerprint({"gap": 60.0})


def batches(*sizes: int) -> list[pa.RecordBatch]:
    """Of these sizes, with the rows numbered throughout, and wider numbers than the schema has."""
    made, first = [], 0
    for size in sizes:
        numbers = list(range(first, first + size))
        wide = pa.array([[n, n] for n in numbers], pa.list_(pa.float64()))
        made.append(
            pa.record_batch(
                {
                    "name": pa.array([f"it's {n}" for n in numbers], pa.string()),
                    "n": pa.array(numbers, pa.int64()),
                    "p": wide,
                }
            )
        )
        first += size
    return made  # fmt: skip


class TestIdentity:
    FILES = (Result("b/1.parquet", "10-a"), Result("b/2.parquet", "10-b"))

    def test_is_that_of_the_files_in_whatever_order(self) -> None:
        assert tables.identity(self.FILES) == tables.identity(reversed(self.FILES))

    def test_changes_when_a_file_comes_goes_moves_or_is_written_anew(self) -> None:
        one, two = self.FILES
        others = [(one,), (*self.FILES, Result("b/3.parquet", "1")), (one, replace(two, version="10-c"))]
        others += [
            (one, replace(two, url="b/4.parquet")),
            (replace(one, version="10-b"), replace(two, version="10-a")),
            (),
        ]
        assert len({tables.identity(files) for files in (self.FILES, *others)}) == 7


class TestATable:
    def test_has_the_encodings_that_every_reader_has(self, tmp_path: Path) -> None:
        url = f"{tmp_path}/table.parquet"
        tables.publish(url, SCHEMA, batches(3, 4), Origin(MARK, "ab"), str(tmp_path))
        group = pq.read_metadata(url).row_group(0)
        found = {encoding for index in range(group.num_columns) for encoding in group.column(index).encodings}
        assert found == {"PLAIN", "RLE", "RLE_DICTIONARY"}

    @pytest.mark.parametrize("kind", ["local", "s3"])
    def test_comes_back_with_what_it_says_of_itself(self, kind: str, tmp_path: Path, bucket: str) -> None:
        base = bucket if kind == "s3" else str(tmp_path / "tables")
        origin = Origin(MARK, "ab", "it's")
        url = f"{base}/deployment=it%27s/events.parquet"
        count = tables.publish(url, SCHEMA, batches(3, 0, 2), origin, str(tmp_path), {"more": "said"})
        store.put(f"{base}/other.parquet", b"not Parquet")
        pq.write_table(pa.table({"n": [1]}), tmp_path / "foreign")
        store.put(f"{base}/foreign.parquet", (tmp_path / "foreign").read_bytes())
        store.put(f"{base}/read.me", b"")
        known = tables.survey(base)
        assert known == {
            url: replace(origin, rows=5), f"{base}/foreign.parquet": None, f"{base}/other.parquet": None,
        }  # fmt: skip
        assert count == 5
        with store.open_tail(url) as stream:
            file = pq.ParquetFile(stream)
            table = file.read()
        assert table.schema.remove_metadata() == SCHEMA
        assert table.column("n").to_pylist() == list(range(5))
        assert file.metadata.metadata[b"more"] == b"said"

    def test_is_done_only_when_made_so_and_from_these_files(self) -> None:
        origin = Origin(MARK, "ab")
        assert origin.made(MARK, "ab")
        assert not origin.made(MARK, "cd")
        assert not origin.made(Fingerprint({"gap": 61.0}), "ab")

    def test_has_row_groups_that_are_full_whatever_it_is_given(self, tmp_path: Path) -> None:
        url = str(tmp_path / "t.parquet")
        tables.publish(url, SCHEMA, batches(*[100] * 50), Origin(MARK, "ab"), str(tmp_path))
        footer = pq.ParquetFile(url).metadata
        assert [footer.row_group(group).num_rows for group in range(footer.num_row_groups)] == [2100, 2100, 800]

    def test_may_have_no_rows(self, tmp_path: Path) -> None:
        url = str(tmp_path / "tables/t.parquet")
        assert tables.publish(url, SCHEMA, [], Origin(MARK, "ab"), str(tmp_path)) == 0
        assert tables.survey(str(tmp_path / "tables")) == {url: Origin(MARK, "ab")}

    def test_does_not_appear_where_what_it_is_made_of_breaks_off(self, tmp_path: Path) -> None:
        def broken() -> object:
            yield from batches(3)
            raise StorageError("s3://x: gone")

        url = str(tmp_path / "tables/t.parquet")
        with pytest.raises(StorageError, match="gone"):
            tables.publish(url, SCHEMA, broken(), Origin(MARK, "ab"), str(tmp_path))  # type: ignore[arg-type]
        assert tables.survey(str(tmp_path / "tables")) == {}


def test_tables_that_were_made_otherwise_are_refused_and_foreign_files_are_not() -> None:
    ours, other = Origin(MARK, "ab"), Origin(Fingerprint({"gap": 30.0}), "ab")
    tables.refuse_others({"a": ours, "b": None}, MARK, "out")
    with pytest.raises(
        OutputConflict, match=r"^out: 1 of its 2 tables were made with different settings \(gap: 30\.0 -> 60\.0\)"
    ):
        tables.refuse_others({"a": ours, "b": None, "c": other}, MARK, "out")


@pytest.mark.parametrize(("first", "second", "refused"), [
    ("/a", "/a", True), ("/a", "/a/b", True), ("/a/b", "/a", True), ("/a", "/ab", False), ("/a/b", "/a/c", False),
])  # fmt: skip
def test_neither_folder_may_lie_in_the_other(first: str, second: str, refused: bool) -> None:
    if refused:
        with pytest.raises(UsageError, match="must be a folder of its own"):
            tables.refuse_nested(first, second)
    else:
        tables.refuse_nested(first, second)
