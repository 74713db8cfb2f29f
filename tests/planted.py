"""Results with planted rows, written as `classify` writes them, for tests of the jobs that come after it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.chunks import Chunk
from pipeline.commit import commit
from pipeline.decode import Facts
from pipeline.fingerprint import Fingerprint
from pipeline.ledger import Footer
from pipeline.predict import Predictions
from pipeline.records import Record
from pipeline.rows import Columns, image_rows, with_predictions
from pipeline.shards import Shard

MARK = Fingerprint({"weights_sha256": "ab" * 32, "top_k": 2, "schema_version": 2})


@dataclass(frozen=True)
class Planted:
    """One image as it should come out: `logits` of the classes, `embedding`, and columns of `decode.Facts`."""

    key: str
    logits: Sequence[float] = ()
    embedding: Sequence[float] | npt.NDArray[np.floating] = ()
    metadata: str | None = None
    status: str = "ok"
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


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
    output: str, shard_uri: str, name: str, images: Sequence[Planted], of: Columns, mark: Fingerprint = MARK
) -> Footer:
    """The file `OUTPUT/name.parquet` of a shard with these images."""
    shard = Shard(shard_uri, "tar", 1000, f"1000-{len(images)}", f"{output}/{name}.parquet")
    facts = [Facts(image.status, image.error, **image.facts) for image in images]  # type: ignore[arg-type]
    good = [image for image in images if image.status != "failed"]
    logits = np.array([image.logits for image in good], np.float64).reshape(len(good), len(of.classes))
    energy = np.logaddexp.reduce(logits, axis=1) if logits.size else np.full(len(good), -np.inf)
    predictions = Predictions(
        probabilities=np.exp(logits - energy[:, None]).astype(np.float32),
        energy=energy.astype(np.float32),
        embedding=np.array([image.embedding for image in good], np.float32).reshape(len(good), of.embedding_size),
        features={},
    )
    rows = image_rows(shard_uri, [Record(image.key, None, image.metadata) for image in images], facts)
    rows = with_predictions(rows, predictions if good else None, of)
    return commit([Chunk(shard, 0, True, rows, np.empty((0, 3, 64, 64), np.uint8), 100, {})], of, mark)
