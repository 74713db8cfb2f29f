"""Read a detector's output as a stream: which boxes it found in which file, and which of these count.

Three forms of JSON are read: MegaDetector's batch output, format 1.x; its `images` alone, as a list; and SpeciesNet's
`predictions`. Or Parquet, with one row per box and the columns file, category, conf and bbox. The entry of a clip has
`frames_processed`, and each of its boxes a `frame_number`. Both count frames as OpenCV decodes them, from 0, even if
they are shown at uneven times, so that `frame_rate` is not needed.
"""

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from math import nan
from operator import itemgetter
from typing import Any

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from trapline.decoding.crops import Box
from trapline.detections.json_stream import JsonStream
from trapline.detections.shard_boxes import Seen
from trapline.errors import UsageError, in_one_line
from trapline.sources.file_types import is_clip
from trapline.storage import store
from trapline.storage.store import Entry

# Categories of these detectors, for files that do not name them, such as Parquet.
_STANDARD = {"1": "animal", "2": "person", "3": "vehicle"}
_COLUMNS = ("file", "category", "conf", "bbox")
_RUN_AGAIN = "convert it to format 1.x, or run MegaDetector 5 or later again"


@dataclass(frozen=True)
class _Layout:
    """One form of JSON.

    Attributes:
        images: where the images are, as a path of ijson.
        file, failure: keys of an image.
    """

    images: str
    file: str
    failure: str


# Category, confidence, bounds, and number of the frame in a clip.
_Found = tuple[str, float, tuple[float, float, float, float], int | None]


@dataclass(frozen=True)
class _Entry:
    """What a detector's file says about one image or clip.

    Attributes:
        file: its name.
        boxes: all of its boxes.
        processed: numbers of the frames of a clip that the detector looked at, if the file says so.
        failed: whether the detector could not read it.
    """

    file: str
    boxes: list[_Found]
    processed: tuple[int, ...] = ()
    failed: bool = False


_BATCH = _Layout("images.item", "file", "failure")
_LIST = _Layout("item", "file", "failure")
_SPECIESNET = _Layout("predictions.item", "filepath", "failures")


@dataclass(frozen=True)
class Detections:
    """A file of detections, and which of them count.

    Attributes:
        entry: the file.
        digest: SHA-256 of its content, in hex.
        threshold: least confidence.
        categories: by name or by number.
    """

    entry: Entry
    digest: str
    threshold: float
    categories: tuple[str, ...]

    @classmethod
    def at(cls, url: str, threshold: float, categories: tuple[str, ...]) -> "Detections":
        """Return the file as it is now; raises StorageError or TransientError."""
        entry = store.stat(store.absolute(url))
        digest = sha256()
        with store.open_unchanged(entry.url, entry.identity) as stream:
            while data := stream.read(2**18):
                digest.update(data)
        return cls(entry, digest.hexdigest(), threshold, categories)

    @property
    def is_parquet(self) -> bool:
        """Whether the file is Parquet, where the boxes of an image may be in rows that do not follow each other."""
        return self.entry.url.lower().endswith(".parquet")

    def files(self, counts: Counter[str]) -> Iterator[tuple[str, Seen]]:
        """Yield each file that the detector looked at, with the boxes that count, in their order.

        Args:
            counts: the counter to which to add the detector's `failures`; `boxes`; and how many of them are
                `below_threshold`, of an `other_category`, `invalid` (empty, not finite, or outside of the picture), or
                `without_frame` (of an unknown frame of a clip).

        Raises:
            UsageError: the file is not what it should be; the message says where.
            StorageError, TransientError: the store refuses, or does not answer; the file changed since `at`.
        """
        layout = _BATCH if self.is_parquet else self._layout()
        names = _STANDARD if self.is_parquet else self._categories(layout)
        wanted = {names.get(category, category) for category in self.categories}
        for entry in self._parquet_files() if self.is_parquet else self._json_files(layout, counts):
            boxes = self._kept(entry.boxes, is_clip(entry.file), names, wanted, counts)
            yield entry.file, Seen(tuple(boxes), entry.processed, entry.failed)

    def _kept(
        self, boxes: Iterable[_Found], of_clip: bool, names: dict[str, str], wanted: set[str], counts: Counter[str]
    ) -> Iterator[Box]:
        for category, confidence, bounds, frame in boxes:
            counts["boxes"] += 1
            name = names.get(category, category)
            box = Box.clipped(name, confidence, bounds, frame)
            if box is None:
                counts["invalid"] += 1
            elif of_clip and frame is None:
                counts["without_frame"] += 1
            elif confidence < self.threshold:
                counts["below_threshold"] += 1
            elif name not in wanted:
                counts["other_category"] += 1
            else:
                yield box

    def _layout(self) -> _Layout:
        """Return the form of the JSON.

        Raises:
            UsageError: it is one that is not read.
        """
        with closing(self._parsed(lambda stream: ijson.parse(stream, use_float=True))) as events:  # type: ignore[type-var]
            for prefix, event, value in events:
                if (prefix, event) == ("", "start_array"):
                    return _LIST
                if (prefix, event) != ("", "map_key"):
                    continue
                if value == "annotations":
                    raise self._malformed("has boxes in pixels (PytorchWildlife)", "use save_detection_timelapse_json")
                if value in ("images", "predictions"):
                    return _SPECIESNET if value == "predictions" else _BATCH
        return _BATCH

    def _categories(self, layout: _Layout) -> dict[str, str]:
        """Return the names of the file's categories by number."""
        if layout is not _BATCH:
            names: Any = _STANDARD
        else:
            info = self._first("info") or {}
            found = str(info.get("format_version", "1")) if isinstance(info, dict) else ""
            if found.partition(".")[0] != "1":
                raise self._malformed(f"its format_version is {found}, and only 1.x is known", _RUN_AGAIN)
            names = self._first("detection_categories")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise self._malformed("has no object `detection_categories`")
        unknown = [one for one in self.categories if one not in names and one not in names.values()]
        if unknown:
            has = ", ".join(names.values())
            raise UsageError(f"{self.entry.url}: has no category {unknown[0]!r} but {has}; see --detection-categories")
        return names

    def _json_files(self, layout: _Layout, counts: Counter[str]) -> Iterator[_Entry]:
        number = 0
        for number, image in enumerate(self._items(layout.images), 1):
            what = f"image {number}"
            if not isinstance(image, dict) or not isinstance(image.get(layout.file), str):
                raise self._malformed(f"{what} names no `{layout.file}`")
            name = image[layout.file]
            failed = bool(image.get(layout.failure))
            if failed:
                counts["failures"] += 1
            elif not isinstance(image.get("detections"), list):
                raise self._malformed(f"{what} ({name}) has neither `detections` nor `{layout.failure}`")
            boxes = [self._box(box, what) for box in image.get("detections") or ()]
            yield _Entry(name, boxes, self._processed(image, what), failed)
        if not number and layout is _BATCH and not isinstance(self._first("images"), list):
            raise self._malformed("has no list `images`")

    def _processed(self, image: dict[str, Any], what: str) -> tuple[int, ...]:
        numbers = image.get("frames_processed") or []
        if not isinstance(numbers, list) or not all(map(_is_frame_number, numbers)):
            raise self._malformed(f"`frames_processed` of {what} is no list of frame numbers")
        return tuple(map(int, numbers))

    def _box(self, box: Any, what: str) -> _Found:
        if isinstance(box, list):
            raise self._malformed(f"a detection of {what} is a list, as MegaDetector wrote before 1.0", _RUN_AGAIN)
        try:
            left, top, width, height = (_number(value) for value in box["bbox"])
            frame = box.get("frame_number")
            if frame is not None and not _is_frame_number(frame):
                raise self._malformed(f"`frame_number` of a detection of {what} is no number from 0")
            bounds = (left, top, width, height)
            return str(box["category"]), _number(box["conf"]), bounds, None if frame is None else int(frame)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._malformed(
                f"a detection of {what} is no box with `category`, `conf` and four numbers of `bbox`"
            ) from error

    def _items(self, prefix: str) -> Iterator[Any]:
        return self._parsed(lambda stream: ijson.items(stream, prefix, use_float=True))

    def _parsed(self, parse: Callable[[JsonStream], Iterator[Any]]) -> Iterator[Any]:
        with store.open_unchanged(self.entry.url, self.entry.identity) as stream:
            try:
                yield from parse(JsonStream(stream))
            except (ijson.JSONError, UnicodeDecodeError) as error:
                raise self._malformed(f"no JSON ({in_one_line(error)})") from error
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise self._malformed(f"no sound gzip ({in_one_line(error)})") from error

    def _first(self, prefix: str) -> Any:
        with closing(self._items(prefix)) as items:  # type: ignore[type-var]
            return next(items, None)

    def _parquet_files(self) -> Iterator[_Entry]:
        with store.open_unchanged(self.entry.url, self.entry.identity) as stream:
            try:
                file = pq.ParquetFile(stream)
                lacking = [name for name in _COLUMNS if name not in file.schema_arrow.names]
                if lacking:
                    raise self._malformed(f"has no column {lacking[0]!r}", f"write {', '.join(_COLUMNS)}")
                rows = (row for batch in file.iter_batches(columns=_COLUMNS) for row in batch.to_pylist())
                for name, boxes in groupby(rows, key=itemgetter("file")):
                    if not isinstance(name, str):
                        raise self._malformed("a row names no `file`")
                    # A row without a box means that the detector has seen the image.
                    yield _Entry(name, [self._box(box, name) for box in boxes if box["bbox"] is not None])
            except (pa.ArrowException, OSError) as error:
                raise self._malformed(f"no sound Parquet ({in_one_line(error)})") from error

    def _malformed(self, what: str, remedy: str = "give MegaDetector's batch output, format 1.x") -> UsageError:
        return UsageError(f"{self.entry.url}: {what}; {remedy}")


def _number(value: Any) -> float:
    return nan if value is None else float(value)


def _is_frame_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**31 and value == int(value)
