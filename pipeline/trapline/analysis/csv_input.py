"""CSV that people keep (deployments, labels, species lists, taxonomies), as columns of text."""

import codecs
import csv
import io
from collections.abc import Sequence

import pyarrow as pa
from pyarrow import csv as arrow_csv

from trapline.errors import UsageError, in_one_line
from trapline.storage import store

# Cells that say nothing: as R, pandas and the Frictionless standards write them.
MISSING = frozenset({"", "NA", "NaN", "nan"})

# What spreadsheets put between cells: `;` where the comma is the decimal sign.
_SEPARATORS = (",", ";", "\t")
# UTF-32 before UTF-16, whose mark it begins with.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Where the first row below the header stands, in the metadata of a table's schema.
_FIRST_LINE = b"first_line"


def read(url: str, required: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """Read the named columns of a CSV file as text without blanks around it; a cell that is in `MISSING` is null.

    Cells are separated by commas, semicolons or tabs, as the header shows or a line `sep=;` before it says. Text is
    UTF-8, or what a byte order mark says. Names of columns count without regard to case, and the table has them as they
    are given here; other columns do not count. The file is read whole.

    Args:
        url: of the file.
        required: columns that must be there.
        optional: columns that are taken where they are there.

    Raises:
        UsageError: the file is no such table, lacks a column, or holds no row.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    text = _decode(url, store.read_many([url])[0])
    separator, skipped, text = _declared_separator(text)
    wanted = {name.lower(): name for name in (*required, *optional)}
    candidates = [separator] if separator else _SEPARATORS
    headers = {candidate: _header(text, candidate) for candidate in candidates}
    separator = max(candidates, key=lambda candidate: len(wanted.keys() & {*headers[candidate]}))
    names = headers[separator]
    if missing := [name for name in required if name.lower() not in names]:
        raise UsageError(f"{url}: has no column {missing[0]!r}, only {', '.join(names) or 'nothing'}; add it")
    present = [name for name in wanted if name in names]
    if twice := [name for name in present if names.count(name) > 1]:
        raise UsageError(f"{url}: has two columns {wanted[twice[0]]!r}; leave one")
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(text.encode()),
            read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=present, column_types=dict.fromkeys(present, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        raise UsageError(f"{url}: no CSV ({in_one_line(error)}); correct it") from error
    if not table.num_rows:
        raise UsageError(f"{url}: holds no row below its header; fill it")
    columns = [pa.array([_value(cell) for cell in column.to_pylist()], pa.string()) for column in table.columns]
    read_in = pa.table(columns, names=[wanted[name] for name in present])
    return read_in.replace_schema_metadata({_FIRST_LINE: str(skipped + 2)})


def line(table: pa.Table, position: int) -> int:
    """Return the line of a file on which the row at a position of its table stands, if no cell has several lines."""
    return int(table.schema.metadata[_FIRST_LINE]) + position


def _decode(url: str, data: bytes) -> str:
    encoding = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        # A guess would turn some names into others: Latin-1 and its relatives differ in letters like these.
        raise UsageError(
            f"{url}: byte {error.start} is not {encoding.upper()}, but perhaps Latin-1 (Windows-1252); "
            "save it as `CSV UTF-8`"
        ) from error
    if "\0" in text:
        raise UsageError(f"{url}: holds NUL characters, like UTF-16 without a byte order mark; save it as `CSV UTF-8`")
    return text


def _declared_separator(text: str) -> tuple[str | None, int, str]:
    """Return the separator that a first line `sep=;` declares or None, how many lines that takes, and the rest."""
    first, end, rest = text.partition("\n")
    name, equals, separator = first.rstrip("\r").strip('"').partition("=")
    if end and equals and name.strip().lower() == "sep" and len(separator) == 1:
        return separator, 1, rest
    return None, 0, text


def _header(text: str, separator: str) -> list[str]:
    try:
        cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []
    return [cell.strip().lower() for cell in cells]


def _value(cell: str | None) -> str | None:
    text = (cell or "").strip()
    return None if text in MISSING else text
