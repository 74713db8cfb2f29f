"""Rows of results in Arrow, built in two halves: what decoding knows about each image, and what the model predicts."""

from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trapline.decoding.crops import Box
from trapline.decoding.decode import Facts
from trapline.model.predictions import Predictions
from trapline.results.schema import CROP_FIELDS, IMAGE_FIELDS, SPECIES_PROBABILITY, Columns, plain_type
from trapline.sources.records import Record

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)

_FACT_NAMES = [field.name for field in fields(Facts)]


def image_rows(
    shard_uri: str,
    records: Sequence[Record],
    facts: Sequence[Facts],
    crops: Sequence[tuple[int, Box] | None] | None = None,
) -> pa.RecordBatch:
    """Return the decoder's half of some rows of a shard.

    Args:
        shard_uri: of the shard.
        records: the image of each row.
        facts: one for each record, in the same order.
        crops: number and box of each row's crop, None for the image itself; by default there are no crop columns.
    """
    columns = {name: [getattr(fact, name) for fact in facts] for name in _FACT_NAMES}
    columns |= {name: [getattr(record, name) for record in records] for name in ("key", "metadata", "identity")}
    # Up to 1,000 frames of a clip would repeat a sidecar of up to 1 MiB.
    for number, fact in enumerate(facts):
        if fact.frame_seconds is not None:
            columns["metadata"][number] = None
    columns["image_uri"] = [f"{shard_uri}#{key}" for key in columns["key"]]
    columns["shard"] = [shard_uri] * len(records)
    kinds = IMAGE_FIELDS
    if crops is not None:
        kinds = [*IMAGE_FIELDS, *CROP_FIELDS]
        columns["crop"] = [crop and crop[0] for crop in crops]
        columns["box"] = [crop and crop[1].bounds for crop in crops]
        columns["detection_confidence"] = [crop and crop[1].confidence for crop in crops]
        columns["detection_category"] = [crop and crop[1].category for crop in crops]
    arrays = [pa.array(columns[field.name], plain_type(field.type)) for field in kinds]
    return pa.RecordBatch.from_arrays(arrays, names=[field.name for field in kinds])


def of_images(rows: Rows) -> Rows:
    """Return the rows of images and clips, without those of crops and frames."""
    return _without_crops(without_frames(rows))


def without_frames(rows: Rows) -> Rows:
    """Return the rows of images, clips and their crops, without those of the frames of clips."""
    if "frame_seconds" not in rows.schema.names:
        return rows
    return rows.filter(rows.column("frame_seconds").is_null())


def of_frames(rows: Rows) -> Rows:
    """Return the rows of the frames of clips, without those of their crops."""
    if "frame_seconds" not in rows.schema.names:  # rows of an older version
        return rows.slice(0, 0)
    return _without_crops(rows.filter(rows.column("frame_seconds").is_valid()))


def _without_crops(rows: Rows) -> Rows:
    return rows.filter(rows.column("crop").is_null()) if "crop" in rows.schema.names else rows


def usable(rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Return which rows have pixels, bool [N]."""
    return np.array([status != "failed" for status in rows.column("status").to_pylist()], dtype=bool)


def with_predictions(
    rows: pa.RecordBatch,
    predictions: Predictions | None,
    columns: Columns,
    mask: npt.NDArray[np.bool_] | None = None,
) -> pa.RecordBatch:
    """Add the model's half: the predictions in the rows that have one, null in the others.

    Args:
        rows: the decoder's half.
        predictions: one for each row of `mask`, in the order of the rows; None if there are none.
        columns: of the result.
        mask: which rows have a prediction, bool [N]; by default all usable ones.
    """
    added = model_columns(usable(rows) if mask is None else mask, predictions, columns)
    arrays = [*rows.columns, *added]
    return pa.RecordBatch.from_arrays(arrays, names=columns.schema.names)


def model_columns(mask: npt.NDArray[np.bool_], predictions: Predictions | None, columns: Columns) -> list[pa.Array]:
    """Return the model's half of some rows: the predictions in the rows that have one, null in the others.

    Args:
        mask: which rows have a prediction, bool [N].
        predictions: one for each row of `mask`, in the order of the rows; None if there are none.
        columns: of the result; the arrays are in the order of its `model_fields`, words as strings.
    """
    if predictions is None:
        return [pa.nulls(len(mask), plain_type(field.type)) for field in columns.model_fields]
    # For each row the position of its prediction, or null: Arrow's take() then gives a value or a null.
    place = pa.array(np.cumsum(mask) - 1, mask=~mask)
    values = _prediction_arrays(predictions, columns)
    return [values[field.name].take(place) for field in columns.model_fields]


def as_predicted(rows: pa.RecordBatch, columns: Columns) -> pa.RecordBatch:
    """Return rows that were read from a result file, with the types that `with_predictions` returns."""
    kinds = [plain_type(field.type) for field in columns.schema]
    arrays = [rows.column(name).cast(kind) for name, kind in zip(columns.schema.names, kinds, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=columns.schema.names)


def table(batches: Sequence[pa.RecordBatch], columns: Columns) -> pa.Table:
    """Return all rows of a shard, in the types of the schema."""
    whole = pa.Table.from_batches(batches)
    encoded = [
        column.dictionary_encode() if pa.types.is_dictionary(field.type) else column
        for column, field in zip(whole.columns, columns.schema, strict=True)
    ]
    return pa.Table.from_arrays(encoded, schema=columns.schema)


def classes_csv(classes: Sequence[str]) -> bytes:
    """Return the content of classes.csv: the classes in the order of `probabilities`."""
    lines = (f'{index},"{name.replace(chr(34), chr(34) * 2)}"' for index, name in enumerate(classes))
    return "\n".join(["index,species", *lines, ""]).encode()


def ranked(probabilities: npt.NDArray[np.float32], classes: Sequence[str], top_k: int) -> dict[str, pa.Array]:
    """Return the columns `species`, `probability` and `top_k`; equally probable classes keep their order.

    Args:
        probabilities: float32 [N, C].
        classes: their C names.
        top_k: how many to list, at most C.
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    names = np.array(classes, dtype=object)
    values = np.take_along_axis(probabilities, best, axis=1)
    offsets = pa.array(np.arange(0, best.size + 1, top_k, dtype=np.int32))
    pairs = pa.StructArray.from_arrays(
        [pa.array(names[best.ravel()], pa.string()), pa.array(values.ravel())], fields=list(SPECIES_PROBABILITY)
    )
    return {
        "species": pa.array(names[best[:, 0]], pa.string()),
        "probability": pa.array(values[:, 0]),
        "top_k": pa.ListArray.from_arrays(offsets, pairs),
    }


def _prediction_arrays(predictions: Predictions, columns: Columns) -> dict[str, pa.Array]:
    count = len(predictions.energy)
    in_bf16 = np.zeros(count, bool) if predictions.in_bf16 is None else predictions.in_bf16
    arrays: dict[str, pa.Array] = {"precision": pa.array(np.where(in_bf16, "bf16", "fp32"), pa.string())}
    if columns.classes:
        arrays |= {
            **ranked(predictions.probabilities, columns.classes, columns.top_k),
            "energy": pa.array(predictions.energy),
            "probabilities": vectors(predictions.probabilities),
        }
    if columns.embedding != "none":
        arrays["embedding"] = vectors(predictions.embedding.astype(columns.embedding))
    for stage in columns.feature_shapes:
        arrays[f"features_{stage}"] = vectors(predictions.features[stage].reshape(count, -1))
    return arrays


def vectors(array: npt.NDArray[np.floating]) -> pa.ListArray:
    """Return an array float32 or float16 [N, D] as a column of N lists of D."""
    count, width = array.shape
    offsets = pa.array(np.arange(count + 1) * width).cast(pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(array.ravel()))


def matrix(lists: pa.ListArray, width: int) -> npt.NDArray[np.floating]:
    """Return N lists of D, without nulls, as an array [N, D] of their own type; a view of the same memory.

    Args:
        lists: such as `vectors` makes, or lists of fixed size.
        width: D.
    """
    values: npt.NDArray[np.floating] = lists.flatten().to_numpy()
    return values.reshape(len(lists), width)
