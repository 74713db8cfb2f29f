from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trapline.analysis import sql
from trapline.errors import StorageError, TransientError


def write(path: Path, rows: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"a": list(range(rows))}), path)
    return str(path)


@pytest.mark.parametrize("text", ["", "it's", "''", "a\nb", "\\", "🦉"])
def test_a_literal_is_the_text(text: str) -> None:
    assert sql.connect().sql(f"SELECT {sql.literal(text)}").fetchall() == [(text,)]


def test_rows_say_their_file_and_folders_add_no_columns(tmp_path: Path) -> None:
    urls = [write(tmp_path / f"site=7/{name}", number) for number, name in enumerate(("a.parquet", "[a].parquet"), 1)]
    connection, relation = sql.connect(), sql.read_parquet(urls)
    assert set(connection.sql(f"FROM {relation}").columns) == {"a", "filename", "file_row_number"}
    rows = connection.sql(f"SELECT a, filename, file_row_number FROM {relation} ORDER BY ALL")
    assert rows.fetchall() == [(0, urls[1], 0), (0, urls[0], 0), (1, urls[1], 1)]


def test_an_answer_counts_what_it_leaves_out() -> None:
    table = sql.ask(sql.connect(), "SELECT unnest(range($n)) AS a", at_most=2, n=5)
    assert (table.records(), table.left_out) == ([{"a": 0}, {"a": 1}], 3)


@pytest.mark.parametrize("name", ["gone.parquet", "[gone].parquet"])
def test_a_missing_file_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    query = f"FROM {sql.read_parquet([str(tmp_path / name)])}"
    with pytest.raises(StorageError) as raised, sql.translated("results"):
        sql.connect().sql(query).fetchall()
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_a_store_that_does_not_answer_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = write(tmp_path / "[a].parquet", 1)

    def refuse(*_: object) -> bytes:
        raise TransientError(f"{url}: busy")

    monkeypatch.setattr("trapline.analysis.store_files.store.read_range", refuse)
    with pytest.raises(TransientError, match=r"\[a\]\.parquet: busy$"), sql.translated("results"):
        sql.connect().sql(f"FROM {sql.read_parquet([url])}").fetchall()
