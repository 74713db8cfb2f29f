"""CSV that people keep (labels, species lists, taxonomies), as columns of text."""

import csv
import io
from collections.abc import Sequence

import pyarrow as pa
from pyarrow import csv as arrow_csv

from trapline.errors import UsageError, in_one_line
from trapline.storage import store


def read(url: str, required: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """The named columns of a CSV file in UTF-8, as text without blanks around it; an empty cell is null.

    Names of columns count without regard to case; other columns are passed over. The file is read whole.

    Args:
        url: of the file.
        required: columns that must be there.
        optional: columns that are taken where they are there.

    Raises:
        UsageError: the file is no such table, lacks a column, or holds no row.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    text = store.read_text(url)
    names = [name.strip().lower() for name in next(csv.reader(io.StringIO(text)), [])]
    if missing := [name for name in required if name not in names]:
        raise UsageError(f"{url}: has no column {missing[0]!r}, only {', '.join(names) or 'nothing'}; add it")
    wanted = [name for name in (*required, *optional) if name in names]
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise UsageError(f"{url}: has two columns {twice[0]!r}; leave one")
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(text.encode()),
            read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        raise UsageError(f"{url}: no CSV ({in_one_line(error)}); correct it") from error
    if not table.num_rows:
        raise UsageError(f"{url}: holds no row below its header; fill it")
    stripped = [[(cell or "").strip() or None for cell in column.to_pylist()] for column in table.columns]
    return pa.table([pa.array(cells, pa.string()) for cells in stripped], names=wanted)


def line(position: int) -> int:
    """The line of a file on which the row at a position of its table stands, as far as no cell has several lines."""
    return position + 2
