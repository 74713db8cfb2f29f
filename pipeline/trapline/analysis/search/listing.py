"""What a job has found, as a table of DuckDB, for a person to see and for a file to keep."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trapline.errors import StorageError, in_one_line

# As DuckDB's COPY names them. JSON is one array: what most readers expect of a file.
_FORMATS = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet"}


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what DuckDB raises, of files at this URL, into our errors, in one line with its own words."""
    try:
        yield
    except (duckdb.Error, OSError) as error:  # a stream of record batches raises what Arrow does
        raise StorageError(f"{url}: {in_one_line(error)}") from error


def save(connection: duckdb.DuckDBPyConnection, query: str, files: Mapping[str, str | None]) -> None:
    """Write the rows of a query to files, one for each format that is named; a file that exists is replaced.

    Args:
        connection: of `results.connect`, with the URLs of the files among its URLs.
        query: a table or a SELECT whose tables are there already, so that only the file itself can fail.
        files: format (csv, json or parquet) -> URL, or None for none.

    Raises:
        StorageError: a file cannot be written.
    """
    for name, url in files.items():
        if url:
            quoted = url.replace("'", "''")
            with translated(url):
                connection.execute(f"COPY (FROM ({query})) TO '{quoted}' ({_FORMATS[name]})")


def show(console: Console, connection: duckdb.DuckDBPyConnection, query: str, limit: int) -> None:
    """Print the first rows of a query; nothing where there are none."""
    cursor = connection.execute(f"FROM ({query}) LIMIT {limit}")
    names = [column[0] for column in cursor.description or ()]
    rows = cursor.fetchall()
    if not rows:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for place, name in enumerate(names):
        number = all(isinstance(row[place], int | float | None) for row in rows)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(value)) for value in row))  # rich would take brackets for its markup
    console.print(table)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return str(value)
