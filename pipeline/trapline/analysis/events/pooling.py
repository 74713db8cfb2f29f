"""Pool the predictions of an event's images: the mean of their distributions over the classes, streamed.

Every image that was predicted has the same weight (a linear opinion pool; Stone 1961, doi:10.1214/aoms/1177704873). A
product would treat the images of a burst as independent, which they are not; with a mean of logarithms, one image in
which the animal has turned away would veto all others; a maximum would trust the most mistaken image. The mean also has
a simple meaning: how probable the species is in a random image of this event. If the results hold only the top k, a
class that is not listed counts as 0, and the mean of each class is a lower bound. Each crop has the weight of an image:
with crops, the mean is that of a random animal of this event.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trapline.results.rows import matrix

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Pooled:
    """The pooled predictions of some events, in order.

    Attributes:
        first: the row of each event's first frame; E rows.
        probabilities: float32 [E, C]; NaN where no frame was predicted.
        best_frame: of each event, the URI of the frame in which the event's most probable class is most probable (the
            first of several); None if no frame was predicted.
    """

    first: pa.RecordBatch
    probabilities: npt.NDArray[np.float32]
    best_frame: list[str | None]


def pool(frames: Iterable[pa.RecordBatch], classes: Sequence[str]) -> Iterator[Pooled]:
    """Pool the frames of each event; memory holds one batch and, of an event that continues in the next, three vectors.

    Args:
        frames: rows with `event` (rising integers), `image_uri`, and `probabilities` (lists of C floats) or `top_k`;
            the rows of an event are consecutive.
        classes: names of the C classes.
    """
    open_event: _OpenEvent | None = None
    for batch in frames:
        if not len(batch):
            continue
        events = batch.column("event").to_numpy()
        starts = np.flatnonzero(np.r_[True, events[1:] != events[:-1]])
        values, predicted = _dense(batch, classes)
        begin = 0
        if open_event and events[0] == open_event.event:
            begin = starts[1] if len(starts) > 1 else len(batch)
            open_event.add(batch.slice(0, begin), values[:begin], predicted[:begin])
            starts = starts[1:]
        if not len(starts):
            continue
        if open_event:
            yield open_event.close()
        tail = starts[-1]
        if tail > begin:
            whole = slice(begin, tail)
            yield _pool_whole(batch.slice(begin, tail - begin), starts[:-1] - begin, values[whole], predicted[whole])
        open_event = _OpenEvent(batch.slice(tail, 1), len(classes))
        open_event.add(batch.slice(tail), values[tail:], predicted[tail:])
    if open_event:
        yield open_event.close()


class _OpenEvent:
    """The running sums of an event that may continue in the next batch."""

    def __init__(self, first: pa.RecordBatch, classes: int) -> None:
        self.event = first.column("event")[0].as_py()
        self._first = first
        self._sum = np.zeros(classes)
        self._count = 0
        self._best = np.full(classes, -1.0)
        self._best_frame = np.full(classes, None, dtype=object)

    def add(self, frames: pa.RecordBatch, values: Floats, predicted: npt.NDArray[np.bool_]) -> None:
        self._sum += values.sum(axis=0)
        self._count += int(predicted.sum())
        place = np.where(predicted[:, None], values, -1.0).argmax(axis=0)
        best = np.where(predicted.any(), np.take_along_axis(values, place[None], axis=0)[0], -1.0)
        better = best > self._best
        uris = frames.column("image_uri").take(pa.array(place)).to_pylist()
        self._best_frame[better] = np.array(uris, dtype=object)[better]
        self._best[better] = best[better]

    def close(self) -> Pooled:
        with np.errstate(invalid="ignore"):
            mean = (self._sum / np.float64(self._count)).astype(np.float32)
        best = self._best_frame[mean.argmax()] if self._count else None
        return Pooled(self._first, mean[None], [best])


def _pool_whole(
    frames: pa.RecordBatch, starts: npt.NDArray[np.intp], values: Floats, predicted: npt.NDArray[np.bool_]
) -> Pooled:
    counts = np.add.reduceat(predicted.astype(np.int64), starts)
    with np.errstate(invalid="ignore"):
        means = (np.add.reduceat(values, starts) / counts[:, None]).astype(np.float32)
    lengths = np.diff(np.r_[starts, len(frames)])
    species = np.repeat(means.argmax(axis=1), lengths)
    candidates = np.where(predicted, values[np.arange(len(frames)), species], -1.0)
    best = np.repeat(np.maximum.reduceat(candidates, starts), lengths)
    places = np.flatnonzero(candidates == best)
    first_of_each = places[np.searchsorted(places, starts)]
    uris = frames.column("image_uri").take(pa.array(first_of_each)).to_pylist()
    best_frame = [uri if count else None for uri, count in zip(uris, counts, strict=True)]
    return Pooled(frames.take(pa.array(starts)), means, best_frame)


def _dense(batch: pa.RecordBatch, classes: Sequence[str]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return probabilities, float64 [N, C], 0 where none is stored; and which rows were predicted, bool [N].

    A row that is not finite counts as not predicted, or its event would have no species.
    """
    full = "probabilities" in batch.schema.names
    column = batch.column("probabilities" if full else "top_k")
    predicted = column.is_valid().to_numpy(zero_copy_only=False)
    values = np.zeros((len(batch), len(classes)))
    if full:
        values[predicted] = matrix(column.drop_null(), len(classes))
    else:
        listed = column.flatten()
        place = pc.index_in(listed.field("species"), pa.array(classes, pa.string())).to_numpy(zero_copy_only=False)
        values[pc.list_parent_indices(column).to_numpy(), place] = listed.field("probability").to_numpy()
    finite = np.isfinite(values).all(axis=1)
    values[~finite] = 0
    return values, predicted & finite
