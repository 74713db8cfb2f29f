"""Tables made from results: Parquet files whose footers say how they were made, and from which files.

As with the results of `classify`, files appear whole and are the ledger. A table that was made in the same way (its
fingerprint) from the same files (a digest of their names, sizes and etags) is done.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trapline import __version__
from trapline.errors import OutputConflict, UsageError
from trapline.results import footer, layout
from trapline.results.fingerprint import Fingerprint
from trapline.results.ledger import Result
from trapline.results.parquet import ROWS_PER_GROUP
from trapline.sources.shards import is_below
from trapline.storage import store
from trapline.storage.retry import translated_errors
from trapline.storage.store import Entry

_TABLE_KEY = "trapline.table"


@dataclass(frozen=True)
class Origin:
    """What a table says about itself.

    Attributes:
        fingerprint: how it was made.
        identity: of the files that it was made from.
        part: of what, where the tables of a folder share the work (a deployment); empty for all of it.
        rows: how many it has.
    """

    fingerprint: Fingerprint
    identity: str
    part: str = ""
    rows: int = 0

    def made(self, fingerprint: Fingerprint, identity: str) -> bool:
        """Whether the table was made so, and from these files."""
        return (self.fingerprint, self.identity) == (fingerprint, identity)


def identity(files: Iterable[Result]) -> str:
    """Return a digest that changes when a result file comes, goes or is written again."""
    text = "\n".join(f"{file.url}\0{file.version}" for file in sorted(files, key=lambda file: file.url))
    return hashlib.sha256(text.encode()).hexdigest()


def survey(folder: str) -> dict[str, Origin | None]:
    """List every Parquet file in a folder, which need not exist, by URL; None if it is not such a table.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    files = layout.data_files(layout.list_files(folder, missing_ok=True))
    return dict(zip((file.url for file in files), footer.read_each(files, _origin), strict=True))


def refuse_others(known: dict[str, Origin | None], fingerprint: Fingerprint, folder: str) -> None:
    """Raise OutputConflict if tables in the folder were made in another way, and say what differs."""
    ours = [table for table in known.values() if table]
    others = [table for table in ours if table.fingerprint != fingerprint]
    if others:
        differences = "; ".join(others[0].fingerprint.differences(fingerprint))
        raise OutputConflict(
            f"{folder}: {len(others)} of its {len(ours)} tables were made with different settings ({differences}); "
            "choose another OUTPUT, or overwrite them with --replace"
        )


def refuse_nested(first: str, second: str) -> None:
    """Raise UsageError if one of two folders lies in the other: globs over one would find the other's files."""
    first, second = store.absolute(first), store.absolute(second)
    one, two = _followed(first), _followed(second)
    if is_below(one, two) or is_below(two, one):
        raise UsageError(f"{second}: must be a folder of its own, neither in nor around {first}")


def _followed(folder: str) -> str:
    """Return where a folder lies that may be named through a symbolic link."""
    return folder if store.remote(folder) else os.path.realpath(folder)


def publish(
    url: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    origin: Origin,
    scratch: str,
    metadata: dict[str, str] | None = None,
    rows_per_group: int = ROWS_PER_GROUP,
) -> int:
    """Write a table, of which memory holds one row group: to a file of this machine first, and then in one piece.

    Its encodings are those that every reader has: Spark 3.5 cannot open a row with a vector in BYTE_STREAM_SPLIT.

    Args:
        url: where to.
        schema: its columns; those of `batches` are cast to it.
        batches: in any sizes.
        origin: what the footer says.
        scratch: a folder for the file.
        metadata: what else the footer says.
        rows_per_group: at least; batches are not split.

    Returns:
        The number of rows.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer; or the scratch folder's disk is full.
    """
    path = str(Path(scratch, "table.parquet"))
    count = 0
    with translated_errors(path), pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=[field.name for field in schema if pa.types.is_string(field.type)],
    ) as writer:  # fmt: skip
        for group in _groups(batches, rows_per_group):
            table = pa.Table.from_batches(group).cast(schema)
            count += len(table)
            writer.write_table(table)
        plain = json.dumps({"identity": origin.identity, "part": origin.part}, ensure_ascii=False)
        writer.add_key_value_metadata(
            {footer.VERSION_KEY: __version__, footer.FINGERPRINT_KEY: origin.fingerprint.to_json(), _TABLE_KEY: plain}
            | (metadata or {})
        )
    store.put_file(url, path)
    return count


def _groups(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[list[pa.RecordBatch]]:
    """Batches that fill a row group."""
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(map(len, group)) >= rows:
            yield group
            group = []
    if group:
        yield group


def _origin(file: Entry) -> Origin | None:
    return origin_of(footer.read_metadata(file))


def origin_of(said: pq.FileMetaData | None) -> Origin | None:
    """Return what a footer says of a table; None if it is not of such a table, or there is none."""
    try:
        metadata = {name.decode(): value.decode() for name, value in ((said and said.metadata) or {}).items()}
        table = json.loads(metadata[_TABLE_KEY])
        fingerprint = Fingerprint.from_json(metadata[footer.FINGERPRINT_KEY])
        return Origin(fingerprint, table["identity"], table["part"], said.num_rows if said else 0)
    except (KeyError, TypeError, ValueError):
        return None
