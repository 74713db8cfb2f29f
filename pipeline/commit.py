"""Predictions become Parquet: the chunks of a shard become one file, whole or not at all, and the file is the ledger.

A shard is done when its file exists and the file's footer names the current fingerprint and the shard's current
identity. There is no second book that could disagree.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import __version__, rows, storage
from pipeline.chunks import Chunk
from pipeline.errors import OutputConflict
from pipeline.fingerprint import Fingerprint
from pipeline.shards import Shard

# What is not data lives here, below OUTPUT.
SIDE_FOLDER = "_trapline"

# At about 6 KB a row some 12 MB: small enough to skip what a query does not want, large enough to scan fast.
_ROWS_PER_GROUP = 2048
# Columns that repeat few values; the others would only fill a dictionary for nothing.
_WORD_COLUMNS = ["status", "format", "camera_make", "camera_model", "camera_serial", "species"]
_STATISTICS = ["image_uri", "key", "status", "captured_at", "species", "probability", "energy", "latitude", "longitude"]
_KEY = "trapline."

# Reading a footer is two requests of some 20 ms each: this many at a time keep one core of the driver busy.
_FOOTER_THREADS = 32


@dataclass(frozen=True)
class Footer:
    """What a result file says of itself, in the key-value metadata of its Parquet footer.

    Attributes:
        uri: the shard that the rows come from.
        identity: size and etag of that shard as it was read.
        fingerprint: how the rows were computed.
        images: rows by status: ok, salvaged, failed.
        reasons: kinds of error, counted.
        species: the most probable class, counted.
        ignored: what was neither image nor sidecar, by suffix.
        broken: why the shard could not be read to its end; None for a sound one.
        size: bytes of the shard.
    """

    uri: str
    identity: str
    fingerprint: Fingerprint
    images: dict[str, int]
    reasons: dict[str, int]
    species: dict[str, int]
    ignored: dict[str, int]
    broken: str | None
    size: int

    def to_metadata(self) -> dict[str, str]:
        """Key-value metadata of a Parquet file."""
        plain = {name: value for name, value in asdict(self).items() if name != "fingerprint"}
        return {
            f"{_KEY}version": __version__,
            f"{_KEY}fingerprint": self.fingerprint.to_json(),
            f"{_KEY}shard": json.dumps(plain, ensure_ascii=False),
        }

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes]) -> "Footer | None":
        """The inverse; None where the file is not one of ours."""
        try:
            plain = json.loads(metadata[f"{_KEY}shard".encode()])
            fingerprint = Fingerprint.from_json(metadata[f"{_KEY}fingerprint".encode()].decode())
            return cls(fingerprint=fingerprint, **plain)
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    Attributes:
        todo: shards without a valid result.
        done: the footers of those that have one.
    """

    todo: list[Shard]
    done: list[Footer]


class Assembler:
    """Puts the chunks of shards together, in whatever order they come and however often."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, Chunk]] = {}

    def add(self, chunk: Chunk) -> list[Chunk] | None:
        """Take a chunk; gives all chunks of its shard, in order, once they are complete."""
        parts = self._parts.setdefault(chunk.shard.uri, {})
        parts[chunk.index] = chunk
        end = next((index for index, part in parts.items() if part.last), None)
        if end is None or len(parts) <= end:
            return None
        del self._parts[chunk.shard.uri]
        return [parts[index] for index in range(end + 1)]

    def drop(self, shard: Shard) -> None:
        """Forget a shard that failed."""
        self._parts.pop(shard.uri, None)


def commit(chunks: Sequence[Chunk], columns: rows.Columns, fingerprint: Fingerprint) -> Footer:
    """Write the Parquet file of a shard.

    Args:
        chunks: all of the shard's, in order, with predictions.
        columns: the schema.
        fingerprint: of this run.

    Raises:
        StorageError: the store refuses the file.
        TransientError: the store did not answer, after retries.
    """
    shard, last = chunks[0].shard, chunks[-1]
    table = rows.table([chunk.rows for chunk in chunks], columns)
    statuses = Counter(table.column("status").to_pylist())
    footer = Footer(
        uri=shard.uri,
        identity=shard.identity,
        fingerprint=fingerprint,
        images={status: statuses[status] for status in ("ok", "salvaged", "failed")},
        reasons=_counts(error.partition(":")[0] for error in table.column("error").to_pylist() if error),
        species=_counts(table.column("species").drop_null().to_pylist()) if columns.classes else {},
        ignored=last.ignored,
        broken=last.broken,
        size=shard.size,
    )
    storage.put(shard.output, _encode(table, footer, columns))
    return footer


def read_footer(url: str) -> Footer | None:
    """The footer of a result file; None where it is not one of ours, or not Parquet at all."""

    def fetch() -> Footer | None:
        with storage.open_tail(url) as stream:
            try:
                return Footer.from_metadata(pq.read_metadata(stream).metadata or {})
            except (pa.ArrowException, OSError):  # Arrow says a bare OSError of a damaged footer; a store's are ours
                return None

    return storage.retrying(url, fetch)


def plan(shards: Sequence[Shard], output: str, fingerprint: Fingerprint, replace: bool) -> Plan:
    """Compare the shards with what OUTPUT holds.

    Args:
        shards: what the inputs hold.
        output: where results go.
        fingerprint: of this run.
        replace: whether results with another fingerprint may be overwritten.

    Raises:
        OutputConflict: OUTPUT holds, under a name that a shard would take, the rows of another shard, or a file that
            is not ours, or (without `replace`) rows with another fingerprint.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    existing = {entry.url for entry in storage.list_files(output, missing_ok=True)}
    candidates = [shard for shard in shards if shard.output in existing]
    with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
        footers = dict(zip(candidates, threads.map(lambda shard: read_footer(shard.output), candidates), strict=True))
    todo, done = [], []
    for shard in shards:
        footer = footers.get(shard)
        if shard in footers:
            _refuse_foreign(shard, footer, output)
        if footer and footer.fingerprint == fingerprint and footer.identity == shard.identity:
            done.append(footer)
        else:
            todo.append(shard)
    if not replace:
        _refuse_other_fingerprint(footers, fingerprint, output)
    return Plan(todo, done)


def _refuse_foreign(shard: Shard, footer: Footer | None, output: str) -> None:
    if footer is None:
        raise OutputConflict(
            f"{shard.output}: not written by Trapline, and in the way; move it, or choose another OUTPUT"
        )
    if footer.uri != shard.uri:
        raise OutputConflict(
            f"{shard.output}: holds the rows of {footer.uri}, not of {shard.uri}; choose another OUTPUT than {output}"
        )


def _refuse_other_fingerprint(footers: dict[Shard, Footer | None], mine: Fingerprint, output: str) -> None:
    others = [footer for footer in footers.values() if footer and footer.fingerprint != mine]
    if others:
        differences = "; ".join(others[0].fingerprint.differences(mine))
        raise OutputConflict(
            f"{output}: {len(others)} of {len(footers)} results were written otherwise ({differences}); "
            "choose another OUTPUT, or overwrite them with --replace"
        )


def _encode(table: pa.Table, footer: Footer, columns: rows.Columns) -> bytes:
    # DuckDB reads this encoding for 32-bit floats and not for 16-bit ones.
    floats = [f"{field.name}.list.element" for field in columns.model_fields if _holds_float32(field.type)]
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=[name for name in _WORD_COLUMNS if name in table.column_names],
        # The bytes of floats of one scale are alike in their exponents: apart from the others they compress.
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        write_statistics=[name for name in _STATISTICS if name in table.column_names],
    ) as writer:
        writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
        # Not as metadata of the schema: Arrow keeps a copy of that beside it, and the footer would be twice as large.
        writer.add_key_value_metadata({**footer.to_metadata(), f"{_KEY}classes": json.dumps(columns.classes)})
    return sink.getvalue()


def _holds_float32(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_float32(kind.value_type))


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
