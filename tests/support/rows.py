"""Shards, and chunks of them as they come back from prediction, for tests of what is written and planned."""

from datetime import datetime, timedelta

import numpy as np

from trapline.decoding.decode import Facts
from trapline.model.predictions import Predictions
from trapline.results.fingerprint import Fingerprint
from trapline.results.rows import image_rows, with_predictions
from trapline.results.schema import Columns
from trapline.run.messages import EndOfShard, PredictedChunk
from trapline.sources.records import Record
from trapline.sources.shards import Shard

MARK = Fingerprint({"weights_sha256": "ab", "top_k": 2})
COLUMNS = Columns(
    classes=tuple(f"species {index}" for index in range(40)),
    embedding_size=128,
    feature_shapes={"stage4": (2, 1, 2)},
    top_k=2,
    probabilities=True,
    embedding="float32",
)


def shard(output: str, name: str = "site=fen/0007.tar") -> Shard:
    return Shard(f"s3://archive/{name}", "tar", 12_345, "12345-e1", f"{output}/{name}.parquet")


def chunk(of: Shard, index: int = 0, last: bool = True, images: int = 3, columns: Columns = COLUMNS) -> PredictedChunk:
    """Images of which every third failed and the others are as varied as real ones."""
    rng = np.random.default_rng(index)
    first = index * images
    facts = [
        Facts("failed", "empty: the file has no bytes")
        if number % 3 == 2
        else Facts(
            "ok",
            None,
            rng.bytes(32),
            640,
            480,
            "jpeg",
            datetime(2024, 5, 17) + timedelta(minutes=number),
            51.5,
            -0.25,
            "RECONYX",
        )
        for number in range(first, first + images)
    ]
    usable = sum(fact.status == "ok" for fact in facts)
    predictions = Predictions(
        probabilities=rng.dirichlet([0.1] * len(columns.classes), size=usable).astype(np.float32),
        energy=rng.normal(size=usable).astype(np.float32),
        embedding=rng.normal(size=(usable, 128)).astype(np.float32),
        features={"stage4": rng.normal(size=(usable, 2, 1, 2)).astype(np.float16)},
    )
    keys = [f"DCIM/{number}.jpg" for number in range(first, first + images)]
    rows = image_rows(of.uri, [Record(key, None, '{"site": "fen"}') for key in keys], facts)
    rows = with_predictions(rows, predictions if usable else None, columns)
    return PredictedChunk(of, index, rows, 100, {}, end=EndOfShard(ignored={".mp4": 2}) if last else None)
