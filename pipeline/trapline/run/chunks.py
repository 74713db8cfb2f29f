"""Records become tensors: a shard is read and decoded chunk by chunk, and each chunk travels on its own."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from trapline.decoding.crops import Box
from trapline.decoding.decode import Facts
from trapline.decoding.sandbox import Decode, decode_with_limits
from trapline.detections.shard_boxes import ShardBoxes
from trapline.errors import ImageError, ShardBroken, TransientError, TraplineError
from trapline.results.rows import image_rows
from trapline.run.reuse import Earlier
from trapline.sources.records import Record, read
from trapline.sources.shards import Shard

# Rows that a chunk has at most for each image that it may have: those without pixels take little, but not nothing.
_ROWS_PER_IMAGE = 4


@dataclass(frozen=True)
class Chunk:
    """Some rows of a shard, up to N with pixels, on their way.

    Attributes:
        shard: whose images these are.
        index: position in the shard, from 0.
        last: whether the shard ends here; its number of chunks is then `index + 1`.
        rows: one per image or crop; the decoder's half, and after prediction both.
        pixels: uint8 [n, 3, H, W], in the order of the rows that have some; n is 0 after prediction.
        encoded_bytes: of the images in this chunk, for progress.
        seconds: spent so far, by step: "read", "decode", "predict".
        carried: whether the rows are taken over, complete, from the shard's earlier result; `pixels` is empty then.
        broken: why the shard could not be read to its end; only on the last chunk.
        ignored: what was neither image nor sidecar, by suffix; only on the last chunk.
        with_pixels: which rows have pixels, bool [len(rows)]; None: those of all usable images.
        unmatched: keys that a detector saw and the shard does not hold; only on the last chunk.
    """

    shard: Shard
    index: int
    last: bool
    rows: pa.RecordBatch
    pixels: npt.NDArray[np.uint8]
    encoded_bytes: int
    seconds: dict[str, float]
    carried: bool = False
    broken: str | None = None
    ignored: dict[str, int] = field(default_factory=dict)
    with_pixels: npt.NDArray[np.bool_] | None = None
    unmatched: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Failure:
    """A shard that could not be read, for no fault of its contents.

    Attributes:
        shard: which.
        reason: in the store's own words.
        transient: whether another try may help.
        fatal: whether every other shard would fail of it, too.
        isolate: whether one of its images may be to blame, and each is better decoded in a process of its own.
    """

    shard: Shard
    reason: str
    transient: bool
    fatal: bool = False
    isolate: bool = False


def read_chunks(
    shard: Shard,
    size: tuple[int, int],
    images: int,
    decode: Decode = decode_with_limits,
    earlier: Earlier | None = None,
    detected: ShardBoxes | None = None,
) -> Iterator[Chunk | Failure]:
    """Read and decode a shard.

    Args:
        shard: what to read.
        size: height and width that the model takes, in pixels.
        images: most images or crops with pixels in one chunk; bounds the memory.
        decode: what makes pixels of bytes.
        earlier: rows to take over as far as their images are unchanged.
        detected: what is to be cut out of them; without it they are classified whole.

    Yields:
        The shard's chunks in order, or in the end a `Failure` instead of the rest. Never raises for bad input.
    """
    builder = _Builder(shard, size, images, decode, detected)
    ignored: Counter[str] = Counter()
    unchanged: set[str] = set()
    broken = None
    try:
        started = perf_counter()
        for record in read(shard, ignored, earlier.identities if earlier else {}):
            builder.seconds["read"] += perf_counter() - started
            if record.unchanged:
                unchanged.add(record.key)
                if detected:
                    detected.crops(record.key)
            else:
                yield from builder.add(record)
            started = perf_counter()
        if earlier and unchanged:
            for rows in earlier.rows(set(unchanged), images):
                unchanged.difference_update(rows.column("key").to_pylist())
                yield builder.carry(rows)
        if unchanged:
            raise TransientError(f"{shard.uri}: its earlier result changed while it was read")
        builder.seconds["read"] += perf_counter() - started
    except ShardBroken as error:
        # The break is a row of its own, with an empty key: what is missing is visible to whoever reads the table.
        broken = str(error)
        yield from builder.add(Record("", None, error=ImageError("broken_shard", broken)))
    except TraplineError as error:
        yield Failure(shard, str(error), transient=isinstance(error, TransientError))
        return
    except MemoryError:
        yield Failure(shard, f"{shard.uri}: out of memory while decoding", transient=True, isolate=True)
        return
    except Exception as error:  # noqa: BLE001 - a bug of ours costs the shard and is named, rather than the night
        yield Failure(shard, f"{shard.uri}: {type(error).__name__}: {error}; please report this", transient=False)
        return
    unmatched = detected.unmatched if detected else []
    yield replace(builder.flush(), last=True, broken=broken, ignored=dict(ignored), unmatched=unmatched)


class _Builder:
    """Collects decoded images until a chunk is full, and numbers the chunks."""

    def __init__(
        self, shard: Shard, size: tuple[int, int], most: int, decode: Decode, detected: ShardBoxes | None
    ) -> None:
        self.shard = shard
        self.size = size
        self.most = most
        self.decode = decode
        self.detected = detected
        self.index = 0
        self._reset()

    def _reset(self) -> None:
        # Of each row; one image may fill several chunks with its crops.
        self.records: list[Record] = []
        self.facts: list[Facts] = []
        self.crops: list[tuple[int, Box] | None] = []
        self.images: list[Tensor | None] = []
        self.encoded_bytes = 0
        self.seconds = {"read": 0.0, "decode": 0.0}

    def add(self, record: Record) -> Iterator[Chunk]:
        """Takes in an image; gives the chunks that become full by it."""
        started = perf_counter()
        cut = self.detected.crops(record.key) if self.detected else None
        if record.data is None:
            pixels, facts = None, Facts("failed", str(record.error))
        else:
            pixels, facts = self.decode(record.data, self.size, crops=cut)
        rows: list[tuple[tuple[int, Box] | None, Tensor | None]] = [(None, None)]
        if cut and pixels is not None:
            rows += [
                ((number, box), image) for number, (box, image) in enumerate(zip(cut.boxes, pixels, strict=True), 1)
            ]
        elif self.detected is None or self.detected.cropping.whole:
            rows = [(None, pixels)]
        seconds = perf_counter() - started
        # The encoded bytes have done their work; the record stays for its names.
        names = replace(record, data=None)
        for crop, image in rows:
            has_room = sum(image is not None for image in self.images) < self.most
            if not has_room or len(self.records) == _ROWS_PER_IMAGE * self.most:
                yield self.flush()
            self.records.append(names)
            self.facts.append(facts)
            self.crops.append(crop)
            self.images.append(image)
        self.encoded_bytes += len(record.data or b"")
        self.seconds["decode"] += seconds

    def flush(self) -> Chunk:
        images = [image for image in self.images if image is not None]
        pixels = np.empty((len(images), 3, *self.size), dtype=np.uint8)
        for place, image in zip(pixels, images, strict=True):
            place[...] = image.numpy()
        with_pixels = np.array([image is not None for image in self.images], dtype=bool)
        rows = image_rows(self.shard.uri, self.records, self.facts, self.crops if self.detected else None)
        chunk = replace(self._chunk(rows, pixels), with_pixels=with_pixels)
        self._reset()
        return chunk

    def carry(self, rows: pa.RecordBatch) -> Chunk:
        nothing = np.empty((0, 3, *self.size), dtype=np.uint8)
        return replace(self._chunk(rows, nothing), encoded_bytes=0, seconds={}, carried=True)

    def _chunk(self, rows: pa.RecordBatch, pixels: npt.NDArray[np.uint8]) -> Chunk:
        chunk = Chunk(self.shard, self.index, False, rows, pixels, self.encoded_bytes, self.seconds)
        self.index += 1
        return chunk
