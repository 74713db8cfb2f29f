"""The prediction of a clip: the mean over its frames, which may lie in several chunks.

Where a chunk is predicted, the predictions of its frames are summed for each clip, and the sums travel with the chunk;
where a shard's chunks are together, those of each clip are added, and fill its row. So pooling needs no columns that
the run does not write, and no frame's predictions twice. Sums are of 64 bits: where chunks end does not show in means
of 32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trapline.model.predictions import Predictions
from trapline.results.rows import model_columns
from trapline.results.schema import Columns, plain_type


@dataclass(frozen=True)
class FrameSums:
    """Sums over frames of one clip.

    Attributes:
        frames: how many.
        probabilities: float64 [C].
        energy: float64.
        embedding: float64 [D].
        in_bf16: whether any of them was computed in bfloat16.
    """

    frames: int
    probabilities: npt.NDArray[np.float64]
    energy: float
    embedding: npt.NDArray[np.float64]
    in_bf16: bool

    def __add__(self, other: "FrameSums") -> "FrameSums":
        """Return the sums over the frames of both."""
        return FrameSums(
            self.frames + other.frames,
            self.probabilities + other.probabilities,
            self.energy + other.energy,
            self.embedding + other.embedding,
            self.in_bf16 or other.in_bf16,
        )


def sum_frames(
    rows: pa.RecordBatch, with_pixels: npt.NDArray[np.bool_], predictions: Predictions | None
) -> dict[str, FrameSums]:
    """Return the sums of a chunk's frames by the key of their clip.

    Args:
        rows: of the chunk.
        with_pixels: which rows have a prediction, bool [len(rows)].
        predictions: in the order of the rows that have one; None where none has.
    """
    if predictions is None:
        return {}
    is_frame = rows.column("frame_seconds").is_valid()
    if "crop" in rows.schema.names:
        is_frame = pc.and_(is_frame, rows.column("crop").is_null())
    is_frame = is_frame.to_numpy(zero_copy_only=False)
    if not is_frame.any():
        return {}
    places: dict[str, list[int]] = {}
    of_row = np.cumsum(with_pixels) - 1
    for row in np.flatnonzero(is_frame & with_pixels):
        places.setdefault(rows.column("key")[int(row)].as_py(), []).append(int(of_row[row]))
    return {
        key: FrameSums(
            len(some),
            predictions.probabilities[some].sum(axis=0, dtype=np.float64),
            float(predictions.energy[some].sum(dtype=np.float64)),
            predictions.embedding[some].sum(axis=0, dtype=np.float64),
            predictions.in_bf16 is not None and bool(predictions.in_bf16[some].any()),
        )
        for key, some in places.items()
    }


def total(sums: Sequence[Mapping[str, FrameSums]]) -> dict[str, FrameSums]:
    """Add what the chunks of a shard have, by clip."""
    added: dict[str, FrameSums] = {}
    for each in sums:
        for key, some in each.items():
            added[key] = added[key] + some if key in added else some
    return added


def fill_clips(rows: pa.RecordBatch, sums: Mapping[str, FrameSums], columns: Columns) -> pa.RecordBatch:
    """Return rows of a shard in which those of clips have the mean prediction of their frames; feature maps are null.

    Args:
        rows: some of the shard's, all columns.
        sums: over all frames of each clip, by key.
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
        probabilities=np.stack([each.probabilities / each.frames for each in found]).astype(np.float32),
        energy=np.array([each.energy / each.frames for each in found], np.float32),
        embedding=np.stack([each.embedding / each.frames for each in found]).astype(np.float32),
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
    # Each row from where it is, but a clip's from behind all rows.
    place = np.arange(len(rows))
    place[own] = len(rows) + np.arange(len(found))
    arrays = list(rows.columns)
    for number, field in enumerate(columns.schema):
        if field.name in pooled:
            both = [arrays[number], pooled[field.name].cast(plain_type(field.type))]
            arrays[number] = pa.concat_arrays(both).take(pa.array(place))
    return pa.RecordBatch.from_arrays(arrays, names=rows.schema.names)
