"""Records become tensors: read and decode a shard, chunk by chunk."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import IO, TypeVar

import numpy as np
import pyarrow as pa
from torch import Tensor

from trapline.decoding import containers
from trapline.decoding.clips import ClipFacts, ClipFile
from trapline.decoding.crops import Box
from trapline.decoding.decode import Facts
from trapline.decoding.sandbox import Decode, decode_with_limits
from trapline.detections.shard_boxes import ShardBoxes
from trapline.errors import ImageError, ShardBroken, TransientError, TraplineError, in_one_line
from trapline.results.rows import image_rows
from trapline.run.messages import DecodedChunk, EndOfShard, Failure, PredictedChunk
from trapline.run.reuse import PreviousResult
from trapline.run.second_readings import FirstReading, is_worthwhile, read_again
from trapline.sources.file_types import media_type
from trapline.sources.records import Record, read
from trapline.sources.shards import Shard
from trapline.sources.spooled import SpooledFile

# The most rows of a chunk, for each image with pixels that it may have: rows without pixels take some memory, too.
_ROWS_PER_IMAGE = 4
# The most frames and crops of a shard. The driver holds their rows until the shard is written, 6.5 KB each.
_MAX_PARTS = 1_000_000

Item = TypeVar("Item")


def read_chunks(
    shard: Shard,
    size: tuple[int, int],
    images: int,
    decode: Decode = decode_with_limits,
    previous: PreviousResult | None = None,
    detected: ShardBoxes | None = None,
) -> Iterator[DecodedChunk | PredictedChunk | Failure]:
    """Read and decode a shard.

    Args:
        shard: what to read.
        size: height and width that the model takes, in pixels.
        images: the most images or crops with pixels in one chunk; bounds the memory.
        decode: turns bytes into pixels.
        previous: the shard's previous result; rows of unchanged images are carried over.
        detected: boxes to cut out of the images; without them images are classified whole.

    Yields:
        The shard's chunks in order; if it fails, a `Failure` in place of the rest. Never raises for bad input.
    """
    builder = _Builder(shard, size, images, decode, detected)
    ignored: Counter[str] = Counter()
    unchanged: set[str] = set()
    first = FirstReading(shard)
    known = previous.identities if previous else {}
    twice = is_worthwhile(shard)
    try:
        try:
            for record in builder.timed(read(shard, ignored, known)):
                if record.unchanged:
                    unchanged.add(record.key)
                    if detected:
                        detected.crops(record.key)
                    continue
                image = builder.decoded(record)
                if not twice or first.accepts(record, image):
                    yield from builder.add(image)
        except ShardBroken as error:
            first.broken = str(error)
        if twice and first.needs_second:
            for image in builder.timed(read_again(first, known, builder.decoded)):
                yield from builder.add(image)
        if previous and unchanged:
            for rows in previous.rows(set(unchanged), images):
                unchanged.difference_update(rows.column("key").to_pylist())
                yield builder.carry(rows)
        if unchanged:
            raise TransientError(f"{shard.uri}: its previous result changed while it was read")
        if first.broken:
            # The break is a row of its own, with an empty key: it is visible in the table that something is missing.
            lost = Record("", None, error=ImageError("broken_shard", first.broken))
            yield from builder.add(builder.decoded(lost))
    except TraplineError as error:
        yield Failure(shard, str(error), transient=isinstance(error, TransientError))
        return
    except MemoryError:
        yield Failure(shard, f"{shard.uri}: out of memory while decoding", transient=True, isolate=True)
        return
    except Exception as error:  # noqa: BLE001 - a bug costs one shard, with a message, and not the night
        yield Failure(shard, f"{shard.uri}: {type(error).__name__}: {error}; please report this", transient=False)
        return
    unmatched = detected.unmatched if detected else []
    if detected and detected.all_matched and unmatched and not first.broken:
        reason = (
            f"{shard.uri}: lacks {len(unmatched):,} of the {len(detected.seen):,} images that the detector's file has "
            f"of it, such as {unmatched[0]}; correct the names, or run with --detections-unmatched warn"
        )
        yield Failure(shard, reason, transient=False)
        return
    yield replace(builder.flush(), end=EndOfShard(first.broken, dict(ignored), unmatched))


@dataclass(frozen=True)
class _Image:
    """An image that was decoded, or could not be.

    Attributes:
        record: the image, without its bytes.
        facts: what decoding found out about it.
        rows: its own row, and those of its crops or frames.
        encoded_bytes: size of the encoded image.
        seconds: time spent on decoding.
    """

    record: Record
    facts: Facts
    rows: "list[_Row]"
    encoded_bytes: int
    seconds: float

    @property
    def status(self) -> str:
        """See `Facts`."""
        return self.facts.status

    @property
    def error(self) -> str | None:
        """See `Facts`."""
        return self.facts.error


@dataclass(frozen=True)
class _Row:
    """One row of the result before prediction.

    Attributes:
        facts: of the image, the clip or the frame.
        crop: number and box of a crop; None if the row is not of a crop.
        pixels: uint8 [3, H, W]; None for a row without prediction.
    """

    facts: Facts
    crop: tuple[int, Box] | None = None
    pixels: Tensor | None = None


def _frame_rows(facts: ClipFacts, pixels: Tensor | None, whole: bool) -> Iterator[_Row]:
    """Yield the rows of a clip's frames, and after each those of its crops; arguments as `clips.decode` returns them.

    As with images, a frame with crops has no prediction of its own; a frame without crops has one only with `whole`.
    """
    if pixels is None:
        return
    taken = 0
    for seconds, boxes in zip(facts.frames, facts.boxes, strict=True):
        frame = replace(facts, frame_seconds=seconds)
        cut = pixels[taken : taken + max(len(boxes), 1)]
        taken += len(cut)
        yield _Row(frame, pixels=cut[0] if whole and not boxes else None)
        for number, (box, picture) in enumerate(zip(boxes, cut, strict=False), 1):
            yield _Row(frame, (number, box), picture)


class _Builder:
    """Collect decoded images until a chunk is full, and number the chunks."""

    def __init__(
        self, shard: Shard, size: tuple[int, int], most: int, decode: Decode, detected: ShardBoxes | None
    ) -> None:
        self.shard = shard
        self.size = size
        self.most = most
        self.decode = decode
        self.detected = detected
        self.index = 0
        self._decoding = 0.0
        self._parts = 0
        self._reset()

    def _reset(self) -> None:
        # One element per row; one image may fill several chunks with its crops.
        self.records: list[Record] = []
        self.facts: list[Facts] = []
        self.crops: list[tuple[int, Box] | None] = []
        self.images: list[Tensor | None] = []
        self.encoded_bytes = 0
        self.seconds = {"read": 0.0, "decode": 0.0}

    def timed(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield the items; count the time that each takes to come as reading, without the time spent on decoding."""
        while True:
            started, decoding = perf_counter(), self._decoding
            item = next(items, None)
            self.seconds["read"] += perf_counter() - started - (self._decoding - decoding)
            if item is None:
                return
            yield item

    def decoded(self, record: Record) -> _Image:
        """Decode an image or the frames of a clip, whole or their crops."""
        started = perf_counter()
        cut = self.detected.crops(record.key) if self.detected else None
        data = self._encoded(record)
        if data is None:
            pixels, facts = None, Facts("failed", str(record.error), media_type=media_type(record.key))
        else:
            try:
                pixels, facts = self.decode(data, self.size, crops=cut)
            except OSError as error:  # the disk with the clip's file failed; the clip may be sound
                raise TransientError(f"{self.shard.uri}: {record.key}: {in_one_line(error)}") from error
        whole = self.detected is None or self.detected.cropping.whole
        rows = [_Row(facts)]
        if isinstance(facts, ClipFacts):
            rows += _frame_rows(facts, pixels, whole)
        elif cut and pixels is not None:
            rows += [
                _Row(facts, (number, box), image)
                for number, (box, image) in enumerate(zip(cut.boxes, pixels, strict=True), 1)
            ]
        elif whole:
            rows = [_Row(facts, pixels=pixels)]
        seconds = perf_counter() - started
        self._decoding += seconds
        return _Image(record.without_data(), facts, rows, record.size, seconds)

    def _encoded(self, record: Record) -> bytes | ClipFile | None:
        """Return what to decode; write the bytes to a file first if they are a clip under another name."""
        clip = record.clip
        if record.data and self.shard.clips and containers.recognise(record.data[: containers.HEAD_BYTES]):
            clip = SpooledFile.copied(partial(_write, record.data))
        return ClipFile(clip.path, clip.sha256, clip) if clip else record.data

    def add(self, image: _Image) -> Iterator[DecodedChunk]:
        """Add the rows of an image; yield the chunks that it fills.

        Raises:
            ShardBroken: the shard has more frames and crops than the driver has memory for.
        """
        parts = sum(row.crop is not None or row.facts.frame_seconds is not None for row in image.rows)
        self._parts += parts
        if parts and self._parts > _MAX_PARTS:
            raise ShardBroken(
                f"{self.shard.uri}: has more than {_MAX_PARTS:,} frames of clips and crops; "
                "split it, or lower --video-frames"
            )
        for row in image.rows:
            has_room = sum(other is not None for other in self.images) < self.most
            if not has_room or len(self.records) == _ROWS_PER_IMAGE * self.most:
                yield self.flush()
            self.records.append(image.record)
            self.facts.append(row.facts)
            self.crops.append(row.crop)
            self.images.append(row.pixels)
        self.encoded_bytes += image.encoded_bytes
        self.seconds["decode"] += image.seconds

    def flush(self) -> DecodedChunk:
        """Return the collected rows as the next chunk."""
        images = [image for image in self.images if image is not None]
        pixels = np.empty((len(images), 3, *self.size), dtype=np.uint8)
        for place, image in zip(pixels, images, strict=True):
            place[...] = image.numpy()
        with_pixels = np.array([image is not None for image in self.images], dtype=bool)
        rows = image_rows(self.shard.uri, self.records, self.facts, self.crops if self.detected else None)
        index = self._next_index()
        chunk = DecodedChunk(self.shard, index, rows, pixels, with_pixels, self.encoded_bytes, self.seconds)
        self._reset()
        return chunk

    def carry(self, rows: pa.RecordBatch) -> PredictedChunk:
        """Return rows of the previous result, as the next chunk."""
        return PredictedChunk(self.shard, self._next_index(), rows, encoded_bytes=0, seconds={}, carried=True)

    def _next_index(self) -> int:
        self.index += 1
        return self.index - 1


def _write(data: bytes, to: IO[bytes]) -> None:
    to.write(data)
