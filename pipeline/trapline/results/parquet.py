"""Predictions become Parquet: the rows of a shard become one file, whole or not at all."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from trapline.results import rows
from trapline.results.fingerprint import Fingerprint
from trapline.results.ledger import CLASSES_KEY, Footer
from trapline.sources.shards import Shard
from trapline.storage import store

# At about 6 KB a row some 12 MB: small enough to skip what a query does not want, large enough to scan fast.
ROWS_PER_GROUP = 2048
# Columns that repeat few values; the others would only fill a dictionary for nothing.
_WORD_COLUMNS = ["status", "format", "camera_make", "camera_model", "camera_serial", "species", "taxon", "rank"]
_STATISTICS = ["image_uri", "key", "status", "captured_at", "species", "probability", "energy", "latitude", "longitude"]


def write_shard(
    shard: Shard,
    batches: Sequence[pa.RecordBatch],
    columns: rows.Columns,
    fingerprint: Fingerprint,
    *,
    broken: str | None = None,
    ignored: Mapping[str, int] | None = None,
    unmatched: int = 0,
) -> Footer:
    """Write the Parquet file of a shard.

    Args:
        shard: where the rows come from, and where they go.
        batches: all of its rows, in order, complete.
        columns: the schema.
        fingerprint: of the run.
        broken: why the shard could not be read to its end; None for a sound one.
        ignored: files that were neither images nor sidecars, by suffix.
        unmatched: images that a detector lists and the shard does not hold.

    Raises:
        StorageError: the store refuses the file.
        TransientError: the store did not answer, after retries.
    """
    table = rows.table(batches, columns)
    images = rows.of_images(table)
    statuses = Counter(images.column("status").to_pylist())
    footer = Footer(
        uri=shard.uri,
        identity=shard.identity,
        fingerprint=fingerprint,
        images={status: statuses[status] for status in ("ok", "salvaged", "failed")},
        reasons=_counts(error.partition(":")[0] for error in images.column("error").to_pylist() if error),
        species=_counts(table.column("species").drop_null().to_pylist()) if columns.classes else {},
        ignored=dict(ignored or {}),
        broken=broken,
        size=shard.size,
        crops=len(table) - len(images),
        unmatched=unmatched,
    )
    store.put(shard.output, _encode(table, footer, columns))
    return footer


def parquet_writer(sink: io.BytesIO, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of rows like ours, of whatever columns, encoded so that they are small and quick to scan."""
    # DuckDB reads this encoding for 32-bit floats and not for 16-bit ones.
    floats = [f"{field.name}.list.element" for field in schema if _holds_float32(field.type)]
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=[name for name in _WORD_COLUMNS if name in schema.names],
        # The bytes of floats of one scale are alike in their exponents: apart from the others they compress.
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        write_statistics=[name for name in _STATISTICS if name in schema.names],
    )


def file_metadata(footer: Footer, classes: Sequence[str]) -> dict[str, str]:
    """What a result file says of itself, for the writer's `add_key_value_metadata`.

    Not for the schema's metadata: Arrow keeps a copy of that beside it, and the footer would be twice as large.
    """
    return {**footer.to_metadata(), CLASSES_KEY: json.dumps(classes)}


def _encode(table: pa.Table, footer: Footer, columns: rows.Columns) -> bytes:
    sink = io.BytesIO()
    with parquet_writer(sink, table.schema) as writer:
        writer.write_table(table, row_group_size=ROWS_PER_GROUP)
        writer.add_key_value_metadata(file_metadata(footer, columns.classes))
    return sink.getvalue()


def _holds_float32(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_float32(kind.value_type))


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
