"""Read a Parquet file of images row by row: memory is bounded by one image, however large the row groups are.

Any error that does not come from the stream is a fault of the file, as with archives.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from trapline.errors import ShardBroken
from trapline.sources import limits, parquet_columns
from trapline.sources.parquet_columns import NAME_COLUMNS, ImageColumn
from trapline.sources.sidecars import is_json, strict_value

# By default pyarrow reads a row group whole.
_STREAMING = {"pre_buffer": False, "buffer_size": 2**20}
_METADATA_COLUMNS = ("metadata", "json")
# Rows to look at if several columns may hold the images.
_FIRST_ROWS = 4
# Length of the signature behind the readable footer of a file with encrypted columns. Asking for the metadata of such a
# column ends the process: Arrow throws an exception that its Python bindings do not catch (pyarrow 26.0).
_SIGNATURE_BYTES = 28
# Key-value metadata of Trapline's own results.
_RESULT_KEY = b"trapline.shard"


@dataclass(frozen=True)
class Row:
    """An image.

    Attributes:
        name: its path if the file has one, else `row/` and its number.
        data: its bytes; None if the cell is null.
        metadata: the metadata column verbatim, or else all columns but image and name, as JSON; None if there are none.
    """

    name: str
    data: bytes | None
    metadata: str | None


class ImageTable:
    """An open Parquet file.

    Args:
        stream: the file.
        uri: its name, for messages.
        image_column: name of the column of images; None to find it by name, type and first rows.

    Raises:
        ShardBroken: no column holds images, or the file is encrypted.
    """

    def __init__(self, stream: IO[bytes], uri: str, image_column: str | None = None) -> None:
        self._bytes = stream.seek(0, io.SEEK_END)
        self._file = pq.ParquetFile(stream, **_STREAMING)
        self._uri = uri
        if _RESULT_KEY in (self._file.metadata.metadata or {}):
            raise ShardBroken(f"{uri}: is a result of Trapline, no input; leave it out of INPUT")
        stream.seek(-8, io.SEEK_END)
        footer_bytes = int.from_bytes(stream.read(4), "little")
        if footer_bytes == self._file.metadata.serialized_size + _SIGNATURE_BYTES:
            raise ShardBroken(f"{uri}: is encrypted; decrypt it, and upload it again")
        self._chosen = parquet_columns.choose(self._file.schema_arrow, uri, image_column, self._first_cells)
        self._sizes = [self._file.metadata.row_group(group).num_rows for group in range(self.groups)]
        self._firsts = list(accumulate(self._sizes, initial=0))

    @property
    def groups(self) -> int:
        """Number of row groups."""
        return int(self._file.num_row_groups)

    @property
    def rows_in_all(self) -> int:
        """Number of rows that the footer counts."""
        return int(self._file.metadata.num_rows)

    @property
    def image_column(self) -> str:
        """Name of the column of images."""
        return self._chosen.image.name

    @property
    def alternatives(self) -> tuple[str, ...]:
        """Names of other columns that hold images, too."""
        return self._chosen.alternatives

    def oversized(self, group: int) -> set[str]:
        """Return the columns to leave out of a row group, because they unpack to many times the file's size."""
        sizes: Counter[str] = Counter()
        chunks = self._file.metadata.row_group(group)
        for place in range(chunks.num_columns):
            chunk = chunks.column(place)
            sizes[chunk.path_in_schema.partition(".")[0]] += chunk.total_uncompressed_size
        return {name for name in self._chosen.others if sizes[name] > limits.max_metadata_bytes(self._bytes)}

    def refuse_wrong_count(self) -> None:
        """Raise ShardBroken if the footer's count of rows is not the sum over the row groups."""
        in_groups = self._firsts[-1]
        if in_groups != self.rows_in_all:
            raise ShardBroken(
                f"{self._uri}: its row groups have {in_groups} of the {self.rows_in_all} rows that its footer counts; "
                "write it again"
            )

    def names(self, group: int) -> Iterator[str]:
        """Read the names of the rows of a row group, without the images."""
        columns = [name for name in self._others(group) if name in NAME_COLUMNS]
        if self._chosen.image.beside:
            columns.append(".".join(self._chosen.image.beside))
        number = self._firsts[group]
        # Also without columns: batches still have their number of rows.
        for batch in self._file.iter_batches(row_groups=[group], columns=columns, use_threads=False):
            for place in range(len(batch)):
                yield self._take_name(number, _cells(batch, place))
                number += 1

    def rows(self, group: int) -> Iterator[Row]:
        """Read the rows of a row group, one at a time.

        Raises:
            ShardBroken: after the last row, if there were not as many as the footer counts.
        """
        columns = [*self._others(group), ".".join(self._chosen.image.path)]
        if self._chosen.image.beside:
            columns.append(".".join(self._chosen.image.beside))
        # To Parquet, the field `bytes` of a struct `image` and a column `image.bytes` have the same path.
        wanted = {*self._others(group), self._chosen.image.path[0]}
        batches = self._file.iter_batches(1, row_groups=[group], columns=columns, use_threads=False)
        count = 0
        for number, batch in enumerate(batches, self._firsts[group]):
            cells = _cells(batch, 0)
            cells = {name: cell for name, cell in cells.items() if name in wanted}
            name = self._take_name(number, cells)
            data = _cell(cells, self._chosen.image.path)
            cells.pop(self._chosen.image.path[0])
            yield Row(name, data, _metadata(cells))
            count += 1
        if count != self._sizes[group]:
            raise ShardBroken(
                f"{self._uri}: row group {group} gave {count} of the {self._sizes[group]} rows that its footer counts, "
                "so that its images may bear each other's names; write it again"
            )

    def _others(self, group: int) -> list[str]:
        oversized = self.oversized(group)
        return [name for name in self._chosen.others if name not in oversized]

    def _first_cells(self, columns: Sequence[ImageColumn]) -> list[list[Any]]:
        paths = [".".join(column.path) for column in columns]
        if not self.groups:
            return [[] for _ in columns]
        batch = next(self._file.iter_batches(_FIRST_ROWS, row_groups=[0], columns=paths, use_threads=False), None)
        rows = [_cells(batch, place) for place in range(len(batch))] if batch else []
        return [[_cell(row, column.path) for row in rows] for column in columns]

    def _take_name(self, number: int, cells: dict[str, Any]) -> str:
        """Return the name of a row, and remove the cell that it comes from."""
        beside = self._chosen.image.beside
        if beside and (name := _cell(cells, beside)) and isinstance(name, str):
            return name
        column = next((name for name in NAME_COLUMNS if isinstance(cells.get(name), str) and cells[name]), None)
        return str(cells.pop(column)) if column else f"row/{number:08d}"


def _metadata(cells: dict[str, Any]) -> str | None:
    verbatim = next((cells[name] for name in _METADATA_COLUMNS if isinstance(cells.get(name), str)), None)
    if verbatim is not None and is_json(verbatim):
        return str(verbatim)
    return json.dumps(strict_value(cells), default=str, ensure_ascii=False) if cells else None


def _cells(batch: pa.RecordBatch, place: int) -> dict[str, Any]:
    return {name: _value(column[place]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _cell(cells: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = cells
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    # Nanoseconds, years before 1, unknown time zones, invalid UTF-8: the image is read nevertheless.
    except (ValueError, ArithmeticError, LookupError, ImportError, NotImplementedError):
        return None
