"""Print the rows that a job has found, and write them to files."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trapline.analysis.sql import literal, translated
from trapline.display_text import display_text
from trapline.storage import store

# As DuckDB's COPY names them. JSON is one array: what most readers expect of a file.
_FORMATS = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet"}


def save(connection: duckdb.DuckDBPyConnection, query: str, files: Mapping[str, str | None]) -> None:
    """Write the rows of a query to files, one for each format that is named; a file that exists is replaced.

    Cells of CSV that a spreadsheet would take for a formula get a `'` before them, which spreadsheets do not show.

    Args:
        connection: DuckDB's.
        query: a table or a SELECT whose tables are there already, so that only the file itself can fail.
        files: format (csv, json or parquet) -> URL, or None for none.

    Raises:
        StorageError: a file cannot be written.
        TransientError: the store did not answer, after retries.
    """
    for name, url in files.items():
        if url:
            with TemporaryDirectory(prefix="trapline-") as scratch, translated(url):
                path = str(Path(scratch, "list"))
                rows = _for_spreadsheets(connection, query) if name == "csv" else query
                connection.execute(f"COPY (FROM ({rows})) TO {literal(path)} ({_FORMATS[name]})")
                store.put_file(url, path)


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


def _for_spreadsheets(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the query, with its texts as text to Excel and LibreOffice: a name may be `=HYPERLINK(…)`."""
    described = connection.sql(f"FROM ({query}) LIMIT 0")
    columns = []
    for column, kind in zip(described.columns, described.types, strict=True):
        name = '"' + column.replace('"', '""') + '"'
        text = f"CASE WHEN regexp_matches({name}, '^[-=+@\\t\\r]') THEN '''' || {name} ELSE {name} END AS {name}"
        columns.append(text if str(kind) == "VARCHAR" or str(kind).startswith("ENUM") else name)
    return f"SELECT {', '.join(columns)} FROM ({query})"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return display_text(str(value))
