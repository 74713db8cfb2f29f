"""What runs on the cluster's workers: shards in, decoded chunks out; decoded chunks in, predicted chunks out.

Nothing here knows what moves the rows: both are plain callables over Arrow tables of one row each. The module is
imported by every worker process, so it imports no more than they need.
"""

import os
import pickle
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, NoReturn, Protocol

from trapline.quick_imports import quick_imports

with quick_imports():
    import pyarrow as pa
    import torch

    from trapline.cpu_count import usable_cpus
    from trapline.decoding.sandbox import Decode, Sandbox, decode_with_limits
    from trapline.detections.shard_boxes import ShardBoxes
    from trapline.errors import FatalError, TransientError, TraplineError, in_one_line
    from trapline.model.checked import make_predictor
    from trapline.model.cpu_threads import CpuThreads
    from trapline.model.device_errors import is_device_lost
    from trapline.model.gpu import Busy
    from trapline.model.precision import multiplies_in_bf16
    from trapline.results.clip_pooling import sum_frames
    from trapline.results.footer import find
    from trapline.results.rows import with_predictions
    from trapline.run.chunks import read_chunks
    from trapline.run.job import Job
    from trapline.run.messages import (
        AlreadyDone,
        DecodedChunk,
        Failure,
        FromPredictor,
        FromReader,
        Item,
        NotStarted,
        PredictedChunk,
        Task,
        WorkerNote,
    )
    from trapline.run.packing import pack, unpack
    from trapline.run.reuse import PreviousResult

if TYPE_CHECKING:
    from trapline.model.checkpoint import Model

# Threads of one CPU predictor; a machine with more cores has more predictors.
CPU_THREADS = 4

# How often a predictor may be restarted because its device was lost. If it happens more often, the device is at fault.
MOST_RESTARTS = 3


class Reader:
    """Read and decode shards; a task on a CPU worker.

    Args:
        job: what to compute.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.decode: Decode = partial(decode_with_limits, mode=job.decode, sampling=job.sampling)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield a dataset row per item of the tasks, which are pickled in a column `task`."""
        # There is a decode task for each core: more threads in each would only compete.
        torch.set_num_threads(1)
        for cell in batch.column("task"):
            yield from map(pack, self._items(pickle.loads(cell.as_py())))

    def _items(self, task: Task) -> Iterator[FromReader]:
        shard, previous, is_current = task.shard, None, False
        if self.job.stop_at and datetime.now(UTC) >= self.job.stop_at:
            yield NotStarted(shard)
            return
        footer = find(shard.output)
        if footer and (footer.uri, footer.fingerprint.digest) == (shard.uri, self.job.fingerprint):
            is_current = footer.identity == shard.identity
            if is_current and not footer.unavailable:  # another run has written it meanwhile
                yield AlreadyDone(footer)
                return
            if shard.format == "folder":
                previous = PreviousResult.of(shard, self.job.columns)
        try:
            if footer and previous and is_current and previous.unavailable(shard) == footer.unavailable:
                yield AlreadyDone(footer)
                return
            detected = self._detected(task)
        except TraplineError as error:
            yield Failure(shard, f"{shard.uri}: {error}", transient=isinstance(error, TransientError))
            return
        with closing(Sandbox(self.job.decode, sampling=self.job.sampling)) as sandbox:
            decode = sandbox if task.isolate else self.decode
            yield from read_chunks(shard, self.job.size, self.job.batch_size, decode, previous, detected)

    def _detected(self, task: Task) -> ShardBoxes | None:
        if self.job.cropping is None:
            return None
        return ShardBoxes(task.boxes.load() if task.boxes else {}, self.job.cropping, self.job.all_matched)


class LostDevices(Protocol):
    """The errors of lost devices that ended earlier processes of an actor, kept outside of its process."""

    def record(self, error: str) -> None:
        """Add an error, just before the process ends."""

    def earlier(self) -> list[str]:
        """Return the errors that ended earlier processes of this actor."""


class PredictorActor:
    """Predict decoded chunks; an actor that holds the model, and may be called by several threads.

    After an error of the device other than a lack of memory, each further call in the process would fail, too. Failing
    faster than healthy actors work, the actor would drain the queue. So the process ends, and Ray restarts it and
    repeats its calls.

    Args:
        job: what to compute.
        load: returns the model.
        lost: keeps such errors; None if the process is not restarted.
    """

    refusal: FatalError | None = None  # why it could not start
    lost: LostDevices | None = None

    def __init__(self, job: Job, load: "Callable[[], Model]", lost: LostDevices | None = None) -> None:
        # Pixels lie in shared memory, which is read-only; no code writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if job.device == "cpu":
            torch.set_num_threads(1)  # of those that call the predictor, which has threads of its own
        stages = tuple(job.columns.feature_shapes)
        self.job = job
        self.busy = Busy()
        self.notes = SimpleQueue[str]()
        self.lost = lost
        self._ending = Lock()
        try:
            self._note_restarts(lost.earlier() if lost else [])
            if job.precision != "fp32" and not multiplies_in_bf16(job.device):
                self.notes.put(
                    f"{platform.node()}: its processor does not multiply in bf16, and takes longer for --precision "
                    f"{job.precision} than for fp32: use machines of one kind, or fp32 and another OUTPUT"
                )
            self.predictor = make_predictor(
                load(),
                job.device,
                job.precision,
                job.batch_size,
                stages,
                self.notes.put,
                bound=job.bound,
                threads=CpuThreads(min(CPU_THREADS, usable_cpus())) if job.device == "cpu" else None,
            )
        except FatalError as error:  # raised here, it would reach the driver as text in an error of Ray's
            self.refusal = error
        except RuntimeError as error:
            self._end_if_device_lost(error)
            raise

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a dataset row for each one given, and another one if there is a note."""
        rows = [pack(self._predict(item)) for item in unpack(batch)]
        with suppress(Empty):
            rows.append(pack(WorkerNote(self.notes.get_nowait())))
        return pa.concat_tables(rows)

    def _predict(self, item: Item) -> FromPredictor:
        if not isinstance(item, DecodedChunk):
            return item
        if self.refusal:
            return Failure(item.shard, str(self.refusal), transient=False, fatal=True)
        self.busy.begin()
        try:
            predictions = self.predictor(item.pixels) if len(item.pixels) else None
        except Exception as error:  # noqa: BLE001 - Ray would drop the block in silence
            self._end_if_device_lost(error)
            reason = f"{item.shard.uri}: {type(error).__name__}: {in_one_line(error)}"
            return Failure(item.shard, reason, transient=False, fatal=isinstance(error, FatalError))
        finally:
            busy = self.busy.end()
        rows = with_predictions(item.rows, predictions, self.job.columns, item.with_pixels)
        seconds = {**item.seconds, "predict": busy}
        clips = sum_frames(item.rows, item.with_pixels, predictions)
        return PredictedChunk(item.shard, item.index, rows, item.encoded_bytes, seconds, clips=clips, end=item.end)

    def _note_restarts(self, errors: list[str]) -> None:
        """Note why this actor was restarted; raise FatalError after too many restarts."""
        if len(errors) > MOST_RESTARTS:
            raise FatalError(
                f"device {self.job.device}: lost {len(errors)} times by one predictor ({errors[-1]}); "
                "check the GPU (nvidia-smi, dmesg), and run the same command again to carry on"
            )
        if errors:
            self.notes.put(f"a predictor was started again, for the {self.job.device} device was lost: {errors[-1]}")

    def _end_if_device_lost(self, error: Exception) -> None:
        if self.lost and is_device_lost(error):
            self._ending.acquire()  # never released: of several calls that fail at once, only one records the loss
            try:
                self.lost.record(in_one_line(error))
            finally:
                _end_process(error)


def _end_process(error: Exception) -> NoReturn:
    """End this process as a crash would: Ray restarts an actor that crashes, but not one that raises."""
    print(f"trapline: the device is lost, so this process ends: {in_one_line(error)}", file=sys.stderr, flush=True)
    os._exit(1)
