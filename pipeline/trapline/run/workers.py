"""What runs on the cluster's workers: shards in, chunks out; chunks in, chunks with predictions out.

Nothing here knows what moves the rows: both are plain callables over Arrow tables of one row each. The module is
imported by every worker process, so it imports no more than they need.
"""

import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from trapline.decoding.sandbox import Decode, Sandbox, decode_with_limits
from trapline.detections.index import Slice
from trapline.detections.shard_boxes import ShardBoxes
from trapline.errors import FatalError, TransientError, TraplineError, in_one_line
from trapline.model.gpu import Busy
from trapline.model.predict import Predictor
from trapline.results.footer import Footer, find
from trapline.results.rows import with_predictions
from trapline.run.chunks import Chunk, Failure, read_chunks
from trapline.run.job import Job
from trapline.run.reuse import Earlier
from trapline.sources.shards import Shard

if TYPE_CHECKING:
    from trapline.model.checkpoint import Model

# Threads that one CPU predictor computes with; more cores make more predictors.
CPU_THREADS = 4


@dataclass(frozen=True)
class Task:
    """A shard to read.

    Attributes:
        shard: which.
        isolate: whether one of its images may have killed or starved a worker: each is decoded in a process of its own.
        boxes: where the boxes of its images stand; None where there are none.
    """

    shard: Shard
    isolate: bool = False
    boxes: Slice | None = None


@dataclass(frozen=True)
class Left:
    """A shard that was not begun, because `stop_at` had come."""

    shard: Shard


@dataclass(frozen=True)
class Remark:
    """What a person should know of a worker."""

    text: str


Item = Chunk | Failure | Footer | Left | Remark
"""What comes of a shard: its chunks; or a failure; or the footer of a result that another run wrote; or nothing yet.

And at times a remark, which is of no shard.
"""


class Reader:
    """A shard in, its items out; a task on a CPU worker."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.decode: Decode = partial(decode_with_limits, mode=job.decode)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Tasks, pickled in a column `task`, in; one dataset row per item out."""
        # Decoding is parallel by task: more threads in each would only take turns.
        torch.set_num_threads(1)
        for cell in batch.column("task"):
            for item in self._items(pickle.loads(cell.as_py())):
                if isinstance(item, Chunk):
                    yield pack(replace(item, pixels=item.pixels[:0]), item.pixels)
                else:
                    yield pack(item)

    def _items(self, task: Task) -> Iterator[Item]:
        shard, earlier = task.shard, None
        if self.job.stop_at and datetime.now(UTC) >= self.job.stop_at:
            yield Left(shard)
            return
        footer = find(shard.output)
        if footer and (footer.uri, footer.fingerprint.digest) == (shard.uri, self.job.fingerprint):
            if footer.identity == shard.identity:  # another run was faster
                yield footer
                return
            if shard.format == "folder":
                earlier = Earlier.of(shard, self.job.columns)
        try:
            detected = self._detected(task)
        except TraplineError as error:
            yield Failure(shard, f"{shard.uri}: {error}", transient=isinstance(error, TransientError))
            return
        with closing(Sandbox(self.job.decode)) as sandbox:
            decode = sandbox if task.isolate else self.decode
            yield from read_chunks(shard, self.job.size, self.job.batch_size, decode, earlier, detected)

    def _detected(self, task: Task) -> ShardBoxes | None:
        if self.job.cropping is None:
            return None
        return ShardBoxes(task.boxes.load() if task.boxes else {}, self.job.cropping)


class PredictorActor:
    """Chunks in, chunks with predictions out; an actor that holds the model, and may be called by several threads."""

    def __init__(self, job: Job, load: "Callable[[], Model]") -> None:
        # Pixels lie in shared memory, which nobody may write to, and nobody does.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if job.device == "cpu":
            torch.set_num_threads(min(CPU_THREADS, os.cpu_count() or 1))
        stages = tuple(job.columns.feature_shapes)
        self.job = job
        self.busy = Busy()
        self.remarks = SimpleQueue[str]()
        self.predictor = Predictor(load(), job.device, job.precision, job.batch_size, stages, self.remarks.put)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """As many dataset rows out as in, and at times one more, with a remark."""
        rows = [pack(self._predict(item, pixels)) for item, pixels in unpack(batch)]
        with suppress(Empty):
            rows.append(pack(Remark(self.remarks.get_nowait())))
        return pa.concat_tables(rows)

    def _predict(self, item: Item, pixels: npt.NDArray[np.uint8]) -> Item:
        if not isinstance(item, Chunk) or item.carried:
            return item
        started = perf_counter()
        images = pixels.reshape(-1, 3, *self.job.size)
        try:
            predictions = self.predictor(images) if len(images) else None
        except Exception as error:  # noqa: BLE001 - Ray would drop the block in silence
            reason = f"{item.shard.uri}: {type(error).__name__}: {in_one_line(error)}"
            return Failure(item.shard, reason, transient=False, fatal=isinstance(error, FatalError))
        rows = with_predictions(item.rows, predictions, self.job.columns, item.with_pixels)
        return replace(item, rows=rows, seconds={**item.seconds, "predict": self.busy.since(started)})


def pack(item: Item, pixels: npt.NDArray[np.uint8] | None = None) -> pa.Table:
    """One dataset row: the item, and its pixels in a cell of their own, which travels without a copy."""
    data = pa.py_buffer(b"" if pixels is None else pixels)
    offsets = pa.py_buffer(np.array([0, data.size], dtype=np.int64))
    cell = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])
    return pa.table({"item": pa.array([pickle.dumps(item)], pa.large_binary()), "pixels": cell})


def unpack(batch: pa.Table) -> Iterator[tuple[Item, npt.NDArray[np.uint8]]]:
    """The inverse of `pack`, for any number of dataset rows; the pixels are flat, and views."""
    items = (pickle.loads(item.as_py()) for item in batch.column("item"))
    yield from zip(items, _views(batch.column("pixels")), strict=True)


def _views(column: pa.ChunkedArray) -> Iterator[npt.NDArray[np.uint8]]:
    # A scalar of Arrow's would be a copy.
    for array in column.chunks:
        _, offsets, data = array.buffers()
        bounds = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
        for start, end in pairwise(bounds):
            yield np.frombuffer(data, dtype=np.uint8, count=end - start, offset=start)
