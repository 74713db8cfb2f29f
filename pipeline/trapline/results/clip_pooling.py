"""The prediction of a clip: the mean over its frames, or over the crops of its frames if a detector found any.

If there are crops, frames without boxes do not count: they say nothing about the animal in the other frames. Nor do
crops of persons and vehicles: a clip with no others has no prediction. Each crop has the same weight, as in events.

After prediction, the frames of each clip in a chunk are summed, and separately their crops. The sums travel with the
chunk; when all chunks of a shard are together, the sums of each clip are added, and fill its row. So pooling needs no
columns that the run does not write, and handles each frame once. The sums have 64 bits, so that the means of 32 bits do
not depend on where chunks end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trapline.model.predictions import Predictions
from trapline.results.rows import model_columns
from trapline.results.schema import NOT_ANIMALS, Columns, plain_type


@dataclass(frozen=True)
class FrameSums:
    """Sums over frames of one clip, or over crops of its frames.

    Attributes:
        count: how many frames or crops.
        probabilities: float64 [C].
        energy: float64.
        embedding: float64 [D].
        in_bf16: whether any of them was computed in bfloat16.
    """

    count: int
    probabilities: npt.NDArray[np.float64]
    energy: float
    embedding: npt.NDArray[np.float64]
    in_bf16: bool

    def __add__(self, other: "FrameSums") -> "FrameSums":
        """Return the sums over both."""
        return FrameSums(
            self.count + other.count,
            self.probabilities + other.probabilities,
            self.energy + other.energy,
            self.embedding + other.embedding,
            self.in_bf16 or other.in_bf16,
        )


class Pooled(IntEnum):
    """What is summed; of a clip, the highest that it has counts."""

    FRAMES = 0
    OTHER_CROPS = 1
    CROPS_OF_ANIMALS = 2


ClipSums = Mapping[tuple[str, Pooled], FrameSums]
"""Sums by the key of a clip, and what they are over."""


def sum_frames(rows: pa.RecordBatch, with_pixels: npt.NDArray[np.bool_], predictions: Predictions | None) -> ClipSums:
    """Return the sums of a chunk's frames, and of their crops.

    Args:
        rows: of the chunk.
        with_pixels: which rows have a prediction, bool [len(rows)].
        predictions: in the order of the rows that have one; None if no row has one.
    """
    if predictions is None:
        return {}
    of_clip = rows.column("frame_seconds").is_valid().to_numpy(zero_copy_only=False) & with_pixels
    if not of_clip.any():
        return {}
    pooled = _pooled(rows)
    places: dict[tuple[str, Pooled], list[int]] = {}
    of_row = np.cumsum(with_pixels) - 1
    for row in np.flatnonzero(of_clip):
        place = rows.column("key")[int(row)].as_py(), Pooled(pooled[row])
        places.setdefault(place, []).append(int(of_row[row]))
    return {
        place: FrameSums(
            len(some),
            predictions.probabilities[some].sum(axis=0, dtype=np.float64),
            float(predictions.energy[some].sum(dtype=np.float64)),
            predictions.embedding[some].sum(axis=0, dtype=np.float64),
            predictions.in_bf16 is not None and bool(predictions.in_bf16[some].any()),
        )
        for place, some in places.items()
    }


def _pooled(rows: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Return what each row counts as, values of `Pooled`."""
    if "crop" not in rows.schema.names:
        return np.zeros(len(rows), np.int64)
    is_crop = rows.column("crop").is_valid().to_numpy(zero_copy_only=False)
    is_other = pc.is_in(rows.column("detection_category"), pa.array(NOT_ANIMALS)).to_numpy(zero_copy_only=False)
    return np.where(is_crop, np.where(is_other, Pooled.OTHER_CROPS, Pooled.CROPS_OF_ANIMALS), Pooled.FRAMES)


def total(sums: Sequence[ClipSums]) -> dict[str, FrameSums]:
    """Add the sums of a shard's chunks; return for each clip, by key, those whose mean is its prediction."""
    added: dict[tuple[str, Pooled], FrameSums] = {}
    for each in sums:
        for place, some in each.items():
            added[place] = added[place] + some if place in added else some
    highest = dict(sorted(added))
    return {key: added[key, pooled] for key, pooled in highest.items() if pooled != Pooled.OTHER_CROPS}


def fill_clips(rows: pa.RecordBatch, sums: Mapping[str, FrameSums], columns: Columns) -> pa.RecordBatch:
    """Return rows of a shard with the mean prediction of its frames in each clip's row; feature maps stay null.

    Args:
        rows: some rows of the shard, all columns.
        sums: of each clip, by key, as `total` returns them.
        columns: of the rows.
    """
    if not sums:
        return rows
    own = rows.column("frame_seconds").is_null()
    if "crop" in rows.schema.names:
        own = pc.and_(own, rows.column("crop").is_null())
    own = pc.and_(own, pc.is_in(rows.column("key"), pa.array(list(sums), pa.string()))).to_numpy(zero_copy_only=False)
    if not own.any():
        return rows
    found = [sums[rows.column("key")[int(row)].as_py()] for row in np.flatnonzero(own)]
    means = Predictions(
        probabilities=np.stack([each.probabilities / each.count for each in found]).astype(np.float32),
        energy=np.array([each.energy / each.count for each in found], np.float32),
        embedding=np.stack([each.embedding / each.count for each in found]).astype(np.float32),
        features={},
        in_bf16=np.array([each.in_bf16 for each in found], dtype=bool),
    )
    scalars = replace(columns, feature_shapes={})
    pooled = dict(
        zip(
            [field.name for field in scalars.model_fields],
            model_columns(np.ones(len(found), dtype=bool), means, scalars),
            strict=True,
        )
    )
    # Each row keeps its values, except a clip's: its values are appended after all rows.
    place = np.arange(len(rows))
    place[own] = len(rows) + np.arange(len(found))
    arrays = list(rows.columns)
    for number, field in enumerate(columns.schema):
        if field.name in pooled:
            both = [arrays[number], pooled[field.name].cast(plain_type(field.type))]
            arrays[number] = pa.concat_arrays(both).take(pa.array(place))
    return pa.RecordBatch.from_arrays(arrays, names=rows.schema.names)
