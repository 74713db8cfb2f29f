"""What travels between the stages of a run, one type per stage."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trapline.detections.index import Slice
from trapline.results.clip_pooling import ClipSums
from trapline.results.footer import Footer
from trapline.sources.shards import Shard


@dataclass(frozen=True)
class Task:
    """A shard to read.

    Attributes:
        shard: which one.
        isolate: whether one of its images may have killed or starved a worker: each is decoded in a process of its own.
        boxes: where the boxes of its images are stored; None if there are none.
    """

    shard: Shard
    isolate: bool = False
    boxes: Slice | None = None


@dataclass(frozen=True)
class EndOfShard:
    """What is known of a shard once it has been read to its end; travels with its last chunk.

    Attributes:
        broken: why the shard could not be read to its end; None for a sound one.
        ignored: files that were neither images nor sidecars, by suffix.
        unmatched: keys that a detector lists and the shard does not hold.
    """

    broken: str | None = None
    ignored: dict[str, int] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DecodedChunk:
    """Some rows of a shard before prediction, up to N of them with pixels.

    Attributes:
        shard: the shard of these images.
        index: position in the shard, from 0.
        rows: one per image or crop, the decoder's half of the columns.
        pixels: uint8 [n, 3, H, W], in the order of the rows that have some.
        with_pixels: which rows have pixels, bool [len(rows)].
        encoded_bytes: of the images in this chunk, for progress.
        seconds: spent so far, by step: "read", "decode".
        end: on the last chunk of the shard; the shard has `index + 1` chunks then.
    """

    shard: Shard
    index: int
    rows: pa.RecordBatch
    pixels: npt.NDArray[np.uint8]
    with_pixels: npt.NDArray[np.bool_]
    encoded_bytes: int
    seconds: dict[str, float]
    end: EndOfShard | None = None


@dataclass(frozen=True)
class PredictedChunk:
    """Some rows of a shard, complete.

    Attributes:
        shard: the shard of these images.
        index: position in the shard, from 0.
        rows: one per image or crop, all columns.
        encoded_bytes: of the images in this chunk, for progress.
        seconds: spent, by step: "read", "decode", "predict"; none where the rows are carried over.
        carried: whether the rows are those of the shard's previous result.
        clips: sums of the predictions of the chunk's frames.
        end: on the last chunk of the shard; the shard has `index + 1` chunks then.
    """

    shard: Shard
    index: int
    rows: pa.RecordBatch
    encoded_bytes: int
    seconds: dict[str, float]
    carried: bool = False
    clips: ClipSums = field(default_factory=dict)
    end: EndOfShard | None = None


@dataclass(frozen=True)
class AlreadyDone:
    """A shard whose result another run has written meanwhile, or whose result lacks only what is still unavailable."""

    footer: Footer


@dataclass(frozen=True)
class NotStarted:
    """A shard that was not begun, because `stop_at` had come."""

    shard: Shard


@dataclass(frozen=True)
class WorkerNote:
    """What a person should know about a worker."""

    text: str


@dataclass(frozen=True)
class Failure:
    """A shard that could not be read, predicted or written, for no fault of its images.

    Attributes:
        shard: which one.
        reason: in the store's own words.
        transient: whether another try may help.
        fatal: whether every other shard would fail for the same reason.
        isolate: whether one of its images may be to blame, and each should be decoded in a process of its own.
    """

    shard: Shard
    reason: str
    transient: bool
    fatal: bool = False
    isolate: bool = False


FromReader = DecodedChunk | PredictedChunk | Failure | AlreadyDone | NotStarted
"""What a decode task yields for a shard: its chunks (complete ones where rows are carried over), or why none come."""

FromPredictor = PredictedChunk | Failure | AlreadyDone | NotStarted | WorkerNote
"""What comes back to the driver, in whatever order."""

Item = FromReader | FromPredictor
