"""Reuse the rows of a folder's previous result: cameras add pictures to a folder, and change none."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trapline.errors import TraplineError
from trapline.results.rows import as_predicted
from trapline.results.schema import Columns
from trapline.sources.loose_images import UNAVAILABLE
from trapline.sources.records import read
from trapline.sources.shards import Shard
from trapline.sources.sidecars import UNAVAILABLE_SIDECAR
from trapline.storage import store
from trapline.storage.store import Entry


@dataclass(frozen=True)
class PreviousResult:
    """The result of a folder, before the folder changed.

    Attributes:
        file: the result.
        columns: its columns.
        identities: key -> size and etag of the image and its sidecar, for the rows whose image was read.
    """

    file: Entry
    columns: Columns
    identities: dict[str, str]

    @classmethod
    def of(cls, shard: Shard, columns: Columns) -> "PreviousResult | None":
        """Return the previous result of a shard; None if it cannot be read."""
        try:
            file = store.stat(shard.output)
            identities = {}
            for batch in _batches(file, ["key", "identity", "content_sha256"]):
                for key, identity, digest in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    if identity and digest:
                        identities[key] = identity
            return cls(file, columns, identities)
        except (TraplineError, pa.ArrowException, OSError):
            return None

    def unavailable(self, shard: Shard) -> int:
        """Return how many of the images and sidecars that the result lacks are unavailable; raise as `records.read`."""
        ignored: Counter[str] = Counter()
        errors = [record.error for record in read(shard, ignored, self.identities) if record.error]
        return sum(error.kind == UNAVAILABLE for error in errors) + ignored[UNAVAILABLE_SIDECAR]

    def rows(self, keys: set[str], most: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of these keys, up to `most` at a time, as predicted rows; raise as `open_unchanged` does."""
        wanted = pa.array(sorted(keys), pa.string())
        for batch in _batches(self.file, self.columns.schema.names, most):
            kept = batch.filter(pc.is_in(batch.column("key"), wanted))
            if len(kept):
                yield as_predicted(kept, self.columns)


def _batches(file: Entry, columns: list[str], most: int = 2**16) -> Iterator[pa.RecordBatch]:
    with store.open_unchanged(file.url, file.identity) as stream:
        yield from pq.ParquetFile(stream).iter_batches(most, columns=columns)
