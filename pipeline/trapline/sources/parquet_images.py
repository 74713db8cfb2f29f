"""What a Parquet file of pictures holds, row by row: memory is bounded by one of them, whatever its row groups have.

Whatever this raises, unless it comes from the stream, is a fault of the file, as with `archives.py`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from trapline.errors import ShardBroken

# pyarrow by itself reads a row group whole.
_STREAMING = {"pre_buffer": False, "buffer_size": 2**20}
# Columns that hold the image and its path, in the order in which we believe their names.
_IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "bytes", "content", "data")
_NAME_COLUMNS = ("path", "file_path", "image_path", "file_name", "filename", "key", "__key__")
_METADATA_COLUMNS = ("metadata", "json")


@dataclass(frozen=True)
class Row:
    """A picture.

    Attributes:
        name: its path, where the file says one; or else `row/` and its number.
        data: its bytes; None where the cell is null.
        metadata: that column verbatim, or else what is neither picture nor name, as JSON; None without.
    """

    name: str
    data: bytes | None
    metadata: str | None


class PictureTable:
    """An open Parquet file.

    Args:
        stream: the file.
        uri: its name, for messages.

    Raises:
        ShardBroken: no column holds pictures.
    """

    def __init__(self, stream: IO[bytes], uri: str) -> None:
        self._file = pq.ParquetFile(stream, **_STREAMING)
        schema = self._file.schema_arrow
        self._image = _image_column(schema, uri)
        self._columns = [field.name for field in schema if field.name == self._image or not _holds_bytes(field.type)]
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self.groups)]
        self._firsts = list(accumulate(sizes, initial=0))

    @property
    def groups(self) -> int:
        """How many row groups there are."""
        return int(self._file.num_row_groups)

    def names(self, group: int) -> Iterator[str]:
        """Of the rows of a row group; no picture is read for it."""
        columns = [name for name in self._columns if name in _NAME_COLUMNS and name != self._image]
        kind = self._file.schema_arrow.field(self._image).type
        if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
            columns.append(f"{self._image}.path")
        number = self._firsts[group]
        # Without columns, batches have rows all the same.
        for batch in self._file.iter_batches(row_groups=[group], columns=columns, use_threads=False):
            for place in range(len(batch)):
                cells = _cells(batch, place)
                yield _take_name(number, cells.pop(self._image, None), cells)
                number += 1

    def rows(self, group: int) -> Iterator[Row]:
        """The rows of a row group, read one at a time: those before one that is broken are sound."""
        batches = self._file.iter_batches(1, row_groups=[group], columns=self._columns, use_threads=False)
        for number, batch in enumerate(batches, self._firsts[group]):
            cells = _cells(batch, 0)
            cell = cells.pop(self._image)
            name = _take_name(number, cell, cells)
            verbatim = next((cells[name] for name in _METADATA_COLUMNS if isinstance(cells.get(name), str)), None)
            metadata = verbatim or (json.dumps(cells, default=str, ensure_ascii=False) if cells else None)
            yield Row(name, cell.get("bytes") if isinstance(cell, dict) else cell, metadata)


def _image_column(schema: pa.Schema, uri: str) -> str:
    candidates = [field.name for field in schema if _holds_bytes(field.type)]
    best = [name for name in _IMAGE_COLUMNS if name in candidates] or candidates
    if not best:
        columns = ", ".join(schema.names[:20])
        raise ShardBroken(f"{uri}: no column of images (binary, or a struct with `bytes`) among {columns}")
    return best[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _cells(batch: pa.RecordBatch, place: int) -> dict[str, Any]:
    return {name: _plain(column[place]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _take_name(number: int, image: Any, cells: dict[str, Any]) -> str:
    """The name of a row; where one of its cells says it, that is taken out of them."""
    if isinstance(image, dict) and isinstance(image.get("path"), str):
        return str(image["path"])
    column = next((name for name in _NAME_COLUMNS if isinstance(cells.get(name), str)), None)
    return str(cells.pop(column)) if column else f"row/{number:08d}"


def _plain(scalar: pa.Scalar) -> Any:
    try:
        value = scalar.as_py()
    # Nanoseconds, years before 1, unknown time zones, broken UTF-8: no reason to lose the image.
    except (ValueError, ArithmeticError, LookupError, ImportError, NotImplementedError):
        return None
    # Nor does JSON have a NaN.
    return None if isinstance(value, float) and not isfinite(value) else value
