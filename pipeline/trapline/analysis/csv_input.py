"""Read CSV files that users write (deployments, labels, species lists, taxonomies), as columns of text."""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trapline.errors import UsageError, in_one_line
from trapline.storage import store

# Cells for missing values, as R, pandas and the Frictionless standards write them.
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
# As spreadsheets write a time: the year first, `/` or `-`, and no zeros before other numbers.
_YEAR_FIRST = re.compile(r"(\d{4})([-/])(\d{1,2})\2(\d{1,2})(?:[T ] *(\d{1,2})(:\d\d.*))?", re.IGNORECASE)
# What Python takes between date and time may be anything: of `2024-05-01+02:00` it makes two o'clock.
_ISO = re.compile(r"[\dW-]{7,10}(?:[T ].+)?", re.IGNORECASE | re.ASCII)
# How files begin that are often taken for a CSV.
_NO_TEXT = {
    b"PK\x03\x04": "a workbook (.xlsx, .ods), or another zip",
    b"\xd0\xcf\x11\xe0": "a workbook (.xls)",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
}
_GZIP = b"\x1f\x8b"
# On which line each row begins, in the metadata of a table's schema.
_LINES = b"lines"


def read(url: str, required: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """Read the named columns of a CSV file as text without blanks around it; a cell that is in `MISSING` is null.

    Cells are separated by commas, semicolons or tabs, as the header shows or a line `sep=;` before it says. Text is
    UTF-8, or what a byte order mark says, and may be packed by gzip. Names of columns count without regard to case, and
    the table has them as they are given here; other columns do not count, nor do rows without any text. The file is
    read whole.

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
    blank, text = _rows_above_header(text)
    skipped += blank
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
    places = [names.index(name) for name in present]
    columns: list[list[str | None]] = [[] for _ in places]
    lines = []
    try:
        for line_before, cells in _rows(text, separator, len(names)):
            for column, place in zip(columns, places, strict=True):
                column.append(_value(cells[place]))
            lines.append(skipped + line_before + 1)
    except (csv.Error, ValueError) as error:
        raise UsageError(f"{url}: no CSV ({in_one_line(error)}); correct it") from error
    if not lines:
        raise UsageError(f"{url}: holds no row below its header; fill it")
    arrays = [pa.array(column, pa.string()) for column in columns]
    table = pa.table(arrays, names=[wanted[name] for name in present])
    return table.replace_schema_metadata({_LINES: np.array(lines, np.int32).tobytes()})


def lines(table: pa.Table) -> npt.NDArray[np.int32]:
    """Return the line of a file on which each row of its table begins, int32 [N]."""
    return np.frombuffer(table.schema.metadata[_LINES], np.int32)


def line(table: pa.Table, position: int) -> int:
    """Return the line of a file on which the row at a position of its table begins."""
    return int(lines(table)[position])


def moment(text: str) -> datetime:
    """Return the time that a cell says: ISO 8601, or as in `2024/5/1 8:00`.

    Dates with the day or the month first are none: nothing tells them apart.

    Raises:
        ValueError: it is no time.
    """
    found = _YEAR_FIRST.fullmatch(text)
    if found:
        year, _, month, day, hour, rest = found.groups()
        text = f"{year}-{month:0>2}-{day:0>2}" + (f"T{hour:0>2}{rest}" if hour else "")
    if not _ISO.fullmatch(text):
        raise ValueError(f"{text} is no time")
    return datetime.fromisoformat(text)


def is_day(text: str) -> bool:
    """Return whether a time is that of a day, without an hour."""
    return not set("T: ") & set(text.upper())


def _rows(text: str, separator: str, width: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows below the header, and how many lines stand before each; rows without any text are none.

    Raises:
        csv.Error, ValueError: a row is malformed, or has another number of cells than the header.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    before = 0
    for number, cells in enumerate(reader):
        begins, before = before, reader.line_num
        if number == 0 or not any(cell.strip() for cell in cells):
            continue
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            raise ValueError(f"line {begins + 1} has {len(cells)} cells, and the header {width}")
        yield begins, cells


def _decode(url: str, data: bytes) -> str:
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise UsageError(f"{url}: damaged gzip ({in_one_line(error)}); give the CSV itself") from error
    if what := next((what for mark, what in _NO_TEXT.items() if data.startswith(mark)), None):
        raise UsageError(f"{url}: is {what}, and no CSV; save the table as `CSV UTF-8`")
    encoding = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        # A guess would turn some names into others: Latin-1 and its relatives differ in letters like these.
        raise UsageError(
            f"{url}: byte {error.start} is not {encoding.upper()}, but perhaps Latin-1 (Windows-1252) or Shift JIS; "
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


def _rows_above_header(text: str) -> tuple[int, str]:
    """Return how many rows without any text stand at the beginning, and the rest."""
    count = 0
    while True:
        first, end, rest = text.partition("\n")
        if not end or first.strip(' \t\r";,'):
            return count, text
        count, text = count + 1, rest


def _header(text: str, separator: str) -> list[str]:
    try:
        cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []
    return [cell.strip().lower() for cell in cells]


def _value(cell: str) -> str | None:
    text = cell.strip()
    return None if text in MISSING else text
