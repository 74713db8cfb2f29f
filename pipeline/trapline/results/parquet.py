"""How rows are encoded in Parquet: the rows of a shard become one file, whole or not at all."""

import io
import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from trapline.results.footer import CLASSES_KEY, Footer
from trapline.storage import store

# Some 12 MB at 6 KB a row: small enough for queries to skip groups, large enough to scan fast.
ROWS_PER_GROUP = 2048
# Columns with few different values; others would only fill a dictionary for nothing.
_WORD_COLUMNS = [
    "shard", "media_type", "status", "format", "camera_make", "camera_model", "camera_serial", "species", "taxon",
    "rank",
]  # fmt: skip
_STATISTICS = [
    "image_uri", "shard", "key", "media_type", "frame_seconds", "status", "captured_at", "species", "probability",
    "energy", "latitude", "longitude",
]  # fmt: skip


def write(url: str, table: pa.Table, footer: Footer, classes: Sequence[str]) -> None:
    """Publish the result file of a shard.

    Args:
        url: of the file.
        table: its rows.
        footer: what the file says about itself.
        classes: names of the C classes.

    Raises:
        StorageError: the store refuses the file.
        TransientError: the store did not answer, after retries.
    """
    sink = io.BytesIO()
    with parquet_writer(sink, table.schema) as writer:
        writer.write_table(table, row_group_size=ROWS_PER_GROUP)
        writer.add_key_value_metadata(file_metadata(footer, classes))
    store.put(url, sink.getvalue())


def parquet_writer(sink: io.BytesIO, schema: pa.Schema) -> pq.ParquetWriter:
    """Return a writer that encodes rows, with any of their columns, to be small and quick to scan."""
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=[name for name in _WORD_COLUMNS if name in schema.names],
        column_encoding=float_encodings(schema),
        write_statistics=[name for name in _STATISTICS if name in schema.names],
    )


def file_metadata(footer: Footer, classes: Sequence[str]) -> dict[str, str]:
    """Return what a result file says about itself, for the writer's `add_key_value_metadata`.

    It must not go into the schema's metadata: Arrow stores a copy of that, and the footer would be twice as large.
    """
    return {**footer.to_metadata(), CLASSES_KEY: json.dumps(classes)}


def float_encodings(schema: pa.Schema) -> dict[str, str]:
    """Return the encoding of the columns that hold vectors of 32-bit floats, for `ParquetWriter`.

    Floats of one scale have similar exponents, which compress once their bytes are stored separately. DuckDB reads this
    encoding for 32-bit floats, but not for 16-bit ones.
    """
    vectors = [field.name for field in schema if pa.types.is_list(field.type) and field.type.value_type == pa.float32()]
    return {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in vectors}
