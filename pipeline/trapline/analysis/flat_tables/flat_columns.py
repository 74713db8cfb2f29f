"""The columns of the flat tables, each as SQL over the rows of results: neither lists nor structs.

Types are those that R, Spark, Athena, BigQuery and Iceberg all have: text, booleans, int32, int64, float32, float64,
and timestamps in microseconds without a zone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from trapline.analysis.deployments import Source, located
from trapline.results.schema import SPECIES_PROBABILITY

# Sidecars may be long, and `identity` is for `classify`.
_LEFT_OUT = {"metadata", "identity"}
_BOX = ("box_left", "box_top", "box_width", "box_height")
_MOMENT = pa.timestamp("us")


@dataclass(frozen=True)
class FlatColumn:
    """A column of the flat tables.

    Attributes:
        name: lower case, of letters, digits and `_`.
        kind: its type.
        value: SQL over a row of results.
    """

    name: str
    kind: pa.DataType
    value: str


def flat_columns(schema: pa.Schema, top_k: int, sources: Sequence[Source]) -> tuple[FlatColumn, ...]:
    """Return the columns of the flat tables.

    Args:
        schema: of the results.
        top_k: how many species the results list for an image.
        sources: where deployments are looked up; without any there are no columns `deployment` and `camera`.
    """
    found = [column for field in schema if field.name not in _LEFT_OUT for column in _flat(field, top_k)]
    # `result` and `folder` are those of the file that a row comes from, joined to it by its URL.
    placed = [FlatColumn("result", pa.string(), "files.result"), FlatColumn("folder", pa.string(), "files.folder")]
    if sources:
        placed += [FlatColumn(name, pa.string(), f"places.{name}") for name in ("deployment", "camera")]
    return (found[0], *placed, *found[1:])


def select(columns: Sequence[FlatColumn], rows: str, sources: Sequence[Source]) -> str:
    """Return the query that makes flat rows of rows of results.

    Args:
        columns: of `flat_columns`.
        rows: a relation in SQL, of `sql.read_parquet`; the table `files` has `url`, `result` and `folder` of its files.
        sources: as for `flat_columns`.
    """
    values = ", ".join(f'{column.value} AS "{column.name}"' for column in columns)
    places = f", LATERAL (SELECT {located(sources)}) AS places" if sources else ""
    return f"SELECT {values} FROM {rows} AS rows JOIN files ON files.url = rows.filename{places}"


def order(columns: Sequence[FlatColumn]) -> str:
    """Return how rows are sorted, in SQL: by place and time, so that the statistics of a row group are narrow."""
    wanted = ("deployment", "camera", "folder", "captured_at", "image_uri", "frame_seconds", "crop")
    present = {column.name for column in columns}
    return ", ".join(f"{name} NULLS FIRST" for name in wanted if name in present)


def _flat(field: pa.Field, top_k: int) -> Iterator[FlatColumn]:
    kind, value = field.type, f'rows."{field.name}"'
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if kind == pa.list_(SPECIES_PROBABILITY):
        for place in range(1, top_k + 1):
            yield FlatColumn(f"species_{place}", pa.string(), f"{value}[{place}].species")
            yield FlatColumn(f"probability_{place}", pa.float32(), f"{value}[{place}].probability")
    elif field.name == "box":
        for place, name in enumerate(_BOX, start=1):
            yield FlatColumn(name, pa.float32(), f"{value}[{place}]")
    elif pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        yield FlatColumn(field.name, pa.string(), f"lower(hex({value}))")
    elif pa.types.is_timestamp(kind):
        yield FlatColumn(field.name, _MOMENT, f"{value}::TIMESTAMP")
    elif pa.types.is_integer(kind):
        yield FlatColumn(field.name, pa.int64() if kind.bit_width > 32 else pa.int32(), value)
    elif not pa.types.is_nested(kind):
        yield FlatColumn(field.name, kind, value)
