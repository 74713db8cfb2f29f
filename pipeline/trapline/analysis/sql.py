"""Use DuckDB: connections that read any store, values and files as SQL, answers, and errors that name the place."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from trapline.analysis.store_files import PREFIX, StoreFiles, name_of
from trapline.errors import StorageError, TransientError, in_one_line

# Of an error that `StoreFiles` raises, DuckDB hands on the traceback, as text.
_OURS = re.compile(r"^(?:trapline\.errors\.)?(StorageError|TransientError): (.+)", re.MULTILINE)

# Rows of an answer: what a person still reads.
MOST_ROWS = 400


@dataclass(frozen=True)
class Table:
    """The answer to a query.

    Attributes:
        names: of the columns.
        rows: at most as many as were asked for.
        left_out: number of further rows.
    """

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    left_out: int = 0

    def records(self) -> list[dict[str, Any]]:
        """Return the rows, by the names of their columns."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]


def connect(scratch: str | None = None, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB in memory that reads files of any store, by the names that `read_parquet` gives them.

    What does not fit into 80 % of the machine's memory goes to a temporary folder; `SET memory_limit` sets another
    bound.

    Args:
        scratch: the temporary folder.
        threads: that DuckDB may have; None for all cores.
    """
    connection = duckdb.connect()
    connection.register_filesystem(StoreFiles())
    if scratch:
        connection.execute(f"SET temp_directory = {literal(scratch)}")
    if threads:
        connection.execute(f"SET threads = {threads}")
    return connection


def literal(text: str) -> str:
    """Return a string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def read_parquet(urls: Iterable[str]) -> str:
    """Return a relation in SQL: the rows of these files and of no others, whatever their names look like.

    Two more columns say where a row stands: `filename`, the file's URL, and `file_row_number`. Folders that look like
    Hive partitions add none.
    """
    names = [name_of(url) for url in urls]
    rows = (
        f"read_parquet([{', '.join(map(literal, names))}], "
        "hive_partitioning = false, union_by_name = false, filename = true, file_row_number = true)"
    )
    if not any(name.startswith(PREFIX) for name in names):
        return rows
    url = f"""CASE WHEN starts_with(filename, '{PREFIX}')
        THEN url_decode(substr(filename, {len(PREFIX) + 1})) ELSE filename END"""
    return f"(SELECT * REPLACE ({url} AS filename) FROM {rows})"


def ask(connection: duckdb.DuckDBPyConnection, query: str, at_most: int = MOST_ROWS, **values: Any) -> Table:
    """Return the answer to a query; `values` are its `$parameters`."""
    cursor = connection.execute(query, values or None)
    names = tuple(column[0] for column in cursor.description or ())
    rows = cursor.fetchall()
    return Table(names, rows[:at_most], max(0, len(rows) - at_most))


def stream(connection: duckdb.DuckDBPyConnection, query: str, most: int, place: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query, up to `most` at a time; raises as `translated` does, also while it is read."""
    with translated(place):
        yield from connection.sql(query).to_arrow_reader(most)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn what DuckDB raises, of files that it cannot read or of a full disk, into an error that names the place.

    Raises:
        StorageError: with DuckDB's own words, in one line.
        StorageError, TransientError: what the store said, where DuckDB read through it.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if ours := _OURS.search(str(error)):
            raise (TransientError if ours[1] == "TransientError" else StorageError)(ours[2].strip()) from error
        raise StorageError(f"{place}: {in_one_line(error)}; if `classify` is writing there, try again later") from error
