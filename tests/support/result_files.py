"""Results with planted rows, written as `classify` writes them, for tests of the jobs that come after it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from trapline.decoding.crops import Box
from trapline.decoding.decode import Facts
from trapline.model.predictions import Predictions
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import Footer
from trapline.results.rows import image_rows, with_predictions
from trapline.results.schema import Columns
from trapline.run.messages import EndOfShard, PredictedChunk
from trapline.run.writer import commit
from trapline.sources.records import Record
from trapline.sources.shards import Shard

_BOX = Box("animal", 0.9, (0.0, 0.0, 0.5, 0.5))
MARK = Fingerprint({"weights_sha256": "ab" * 32, "top_k": 2, "schema_version": 2})


@dataclass(frozen=True)
class Planted:
    """One row as it should come out: `logits` of the classes, `embedding`, and columns of `decode.Facts`.

    With crops in the schema, a row is that of the `crop` of this number, and one without `logits` was not classified.
    """

    key: str
    logits: Sequence[float] = ()
    embedding: Sequence[float] | npt.NDArray[np.floating] = ()
    metadata: str | None = None
    status: str = "ok"
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    crop: int | None = None
    box: Box = _BOX


def columns(classes: Sequence[str], embedding_size: int, top_k: int = 2, **values: Any) -> Columns:
    return Columns(
        **{
            "classes": tuple(classes),
            "embedding_size": embedding_size,
            "feature_shapes": {},
            "top_k": top_k,
            "probabilities": True,
            "embedding": "float32",
            **values,
        }
    )


def write_result(
    output: str,
    shard_uri: str,
    name: str,
    images: Sequence[Planted],
    of: Columns,
    mark: Fingerprint = MARK,
    loose: bool = False,
) -> Footer:
    """The file `OUTPUT/name.parquet` of a shard with these images; with `loose`, of a folder of photographs."""
    shard = Shard(shard_uri, "tar", 1000, f"1000-{len(images)}", f"{output}/{name}.parquet")
    facts = [Facts(image.status, image.error, **image.facts) for image in images]  # type: ignore[arg-type]
    mask = np.array([image.status != "failed" and (len(image.logits) > 0 or not of.crops) for image in images])
    good = [image for image, is_good in zip(images, mask, strict=True) if is_good]
    logits = np.array([image.logits for image in good], np.float64).reshape(len(good), len(of.classes))
    energy = np.logaddexp.reduce(logits, axis=1) if logits.size else np.full(len(good), -np.inf)
    predictions = Predictions(
        probabilities=np.exp(logits - energy[:, None]).astype(np.float32),
        energy=energy.astype(np.float32),
        embedding=np.array([image.embedding for image in good], np.float32).reshape(len(good), of.embedding_size),
        features={},
    )
    crops = [image.crop and (image.crop, image.box) for image in images] if of.crops else None
    rows = image_rows(
        shard_uri,
        [Record(image.key, None, image.metadata, identity="1-a" if loose else None) for image in images],
        facts,
        crops,
    )
    rows = with_predictions(rows, predictions if good else None, of, mask)
    return commit([PredictedChunk(shard, 0, rows, 100, {}, end=EndOfShard())], of, mark)


def parquet_with_damaged_footer() -> bytes:
    """Parquet by its first and last bytes, with nonsense for a footer."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), sink)
    data = sink.getvalue()
    length = int.from_bytes(data[-8:-4], "little")
    return data[: -8 - length] + b"\xff" * length + data[-8:]


def as_a_user(url: str) -> duckdb.DuckDBPyConnection:
    """DuckDB as people have it, which reads the store of a URL through fsspec."""
    connection = duckdb.connect()
    if url.startswith("s3://"):
        connection.register_filesystem(fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True))
    return connection
