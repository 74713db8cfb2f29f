"""Write results in MegaDetector's batch output format, which Timelapse, AddaxAI and MegaDetector's own tools open.

Format 1.6: https://lila.science/megadetector-output-format. Each image has its boxes, each box the detector's category
and confidence, and the most probable classes with their probabilities. An image that was classified without boxes has
one box around all of it, of the category `animal`, whose confidence is the probability of the first class. A clip has
the boxes of each frame that was sampled, with the frame's number.

With events, the classes of an image are those of its event.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from trapline.analysis import dataset, event_dataset
from trapline.analysis.dataset import Results
from trapline.analysis.event_dataset import EventFiles
from trapline.analysis.sql import connect, read_parquet, stream, translated
from trapline.errors import OutputConflict, StorageError, UsageError
from trapline.results.schema import NOT_ANIMALS
from trapline.storage import store

FORMAT_VERSION = "1.6"

_STANDARD_CATEGORIES = {"1": "animal", "2": "person", "3": "vehicle"}
# Suffixes that MegaDetector's tools take for clips, for which they expect frames.
_CLIP_SUFFIXES = (".mp4", ".avi", ".mpeg", ".mpg", ".mov", ".mkv", ".flv")
_ROWS_AT_ONCE = 2**14
_COLUMNS = (
    *("image_uri", "key", "media_type", "frame_seconds", "frame_rate", "duration_seconds", "status", "error"),
    *("probability", "top_k", "crop", "box", "detection_confidence", "detection_category"),
)
# MegaDetector writes three digits of a confidence and four of a coordinate; four are a third of a pixel in 3,000.
_DIGITS = 4


@dataclass(frozen=True)
class Account:
    """What was written.

    Attributes:
        images: entries of the file, which are images and clips.
        boxes: in all of them.
        failures: images and clips that could not be read.
    """

    images: int
    boxes: int
    failures: int


def write(source: Results, url: str, replace: bool = False, events: str | None = None) -> Account:
    """Write all images of the results to one JSON file; memory holds a batch of rows.

    Args:
        source: the results of `classify` or `rescore`.
        url: of the file.
        replace: overwrite a file that is there.
        events: the events of these results, whose classes are written; None: each image has its own.

    Raises:
        UsageError: the model has no classes, or the events are not of these results as they are now.
        OutputConflict: the file is there, or the results changed meanwhile.
        StorageError, TransientError: a store refuses, or does not answer.
    """
    url = store.absolute(url)
    current = event_dataset.find(store.absolute(events), source) if events else None
    if not source.classes:
        raise UsageError(f"{source.output}: its model has no classes, so there are no classifications to write")
    if not replace and _is_there(url):
        raise OutputConflict(f"{url}: is there; choose another file, or overwrite it with --replace")
    with TemporaryDirectory(prefix="trapline-") as scratch, translated(source.output):
        connection = connect(scratch)
        _define_rows(connection, source, current)
        path = Path(scratch, "detections.json")
        account, found = _write(connection, source, path, current is not None)
        dataset.require_all(source, found)
        store.put_file(url, str(path))
    return account


def _is_there(url: str) -> bool:
    try:
        store.stat(url)
    except StorageError:
        return False
    return True


def _define_rows(connection: duckdb.DuckDBPyConnection, source: Results, current: EventFiles | None) -> None:
    """Create the view `result_rows`: what is written of each row, and the classes of its event where there are any."""
    rows = read_parquet(file.url for file in source.files)
    present = {*dataset.columns(source)}
    columns = ", ".join(name if name in present else f"null as {name}" for name in _COLUMNS)
    own = f"select {columns}, filename, file_row_number from {rows}"
    if current:
        own = f"""
            select rows.*, events.top_k as event_top_k, events.probability as event_probability from ({own}) as rows
            left join {read_parquet(current.images)} as placed using (image_uri)
            left join {read_parquet(current.events)} as events using (event_id)"""
    connection.execute(f"create temp view result_rows as {own}")


def _write(
    connection: duckdb.DuckDBPyConnection, source: Results, path: Path, pooled: bool
) -> tuple[Account, Counter[str]]:
    """Write the file; return what it holds, and how many images and clips were read of each result file."""
    names = "select distinct detection_category from result_rows where detection_category is not null"
    numbers = _numbers([name for (name,) in connection.sql(names).fetchall()])
    classes = {name: str(number) for number, name in enumerate(source.classes)}
    images = boxes = failures = 0
    read: Counter[str] = Counter()
    with path.open("w", encoding="utf-8") as file:
        head = {
            "info": _info(source, pooled),
            "detection_categories": {number: name for name, number in numbers.items()},
            "classification_categories": {number: name for name, number in classes.items()},
        }
        file.write(json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "images": [')
        for rows in _images(connection, source):
            own = next(row for row in rows if row["crop"] is None and row["frame_seconds"] is None)
            read[own["filename"]] += 1
            if not own["key"]:  # the row that names the break of a shard
                continue
            shard = dataset.shard_path(own["filename"], source.output)
            entry = {"file": "/".join(filter(None, (shard, own["key"])))} | _seen(own, rows, numbers, classes)
            file.write(("," if images else "") + "\n  " + json.dumps(entry, ensure_ascii=False))
            images += 1
            boxes += len(entry["detections"] or ())
            failures += "failure" in entry
        file.write("\n ]\n}\n")
    return Account(images, boxes, failures), read


def _images(connection: duckdb.DuckDBPyConnection, source: Results) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each image or clip, which lie together in its file."""
    query = "from result_rows order by filename, file_row_number"
    batches = stream(connection, query, _ROWS_AT_ONCE, source.output)
    rows = (row for batch in batches for row in batch.to_pylist())
    for _, group in groupby(rows, key=itemgetter("image_uri")):
        yield list(group)


def _seen(
    own: dict[str, Any], rows: Sequence[dict[str, Any]], numbers: dict[str, str], classes: dict[str, str]
) -> dict[str, Any]:
    """Return what an entry says besides its name."""
    is_clip = own["media_type"] == "video" or own["key"].lower().endswith(_CLIP_SUFFIXES)
    if own["status"] == "failed":
        clip = {"frame_rate": -1, "frames_processed": []} if is_clip else {}
        return clip | {"failure": own["error"], "detections": None}
    if not is_clip:
        return {"detections": _boxes(rows, numbers, classes)}
    rate = own["frame_rate"] or 1
    when = itemgetter("frame_seconds")
    parts = sorted((row for row in rows if when(row) is not None), key=when) or [own | {"frame_seconds": 0.0}]
    by_frame = [(seconds, list(frame)) for seconds, frame in groupby(parts, key=when)]
    processed = _frame_numbers([seconds for seconds, _ in by_frame], rate, own["duration_seconds"] or 0)
    boxes: list[dict[str, Any]] = []
    for number, (_, frame) in zip(processed, by_frame, strict=True):
        boxes += [box | {"frame_number": number} for box in _boxes(frame, numbers, classes)]
    return {"frame_rate": rate, "frames_processed": processed, "detections": boxes}


def _frame_numbers(seconds: Sequence[float], rate: float, duration: float) -> list[int]:
    """Return a number for each frame of a clip, by the average rate: its own, and one that the clip has.

    Where frames are shown at uneven times, these are not their own; but a tool that opens them finds each.

    Args:
        seconds: when each is shown, in order.
        rate: frames a second, on average.
        duration: of the clip, in seconds.
    """
    numbers: list[int] = []
    for each in seconds:
        numbers.append(max(round(each * rate), numbers[-1] + 1 if numbers else 0))
    most = max(round(duration * rate), len(numbers)) - len(numbers)
    return [min(number, most + place) for place, number in enumerate(numbers)]


def _boxes(rows: Sequence[dict[str, Any]], numbers: dict[str, str], classes: dict[str, str]) -> list[dict[str, Any]]:
    """Return the boxes of an image or of a frame, or one around all of it."""
    crops = [row for row in rows if row["crop"] is not None]
    if crops:
        return [_box(row, numbers, classes) for row in crops]
    top_k, probability = _named(rows[0])
    if top_k is None:
        return []
    whole = {"category": numbers["animal"], "conf": _rounded(probability), "bbox": [0.0, 0.0, 1.0, 1.0]}
    return [whole | {"classifications": _classifications(top_k, classes)}]


def _named(row: dict[str, Any]) -> tuple[list[dict[str, Any]] | None, float]:
    """Return the most probable classes of a row, or of its event, and the probability of the first."""
    if row["top_k"] is not None and row.get("event_top_k"):
        return row["event_top_k"], row["event_probability"]
    known = row["probability"] is not None and math.isfinite(row["probability"])  # JSON has no word for others
    return row["top_k"] if known else None, row["probability"]


def _box(row: dict[str, Any], numbers: dict[str, str], classes: dict[str, str]) -> dict[str, Any]:
    box = {
        "category": numbers[row["detection_category"]],
        "conf": _rounded(row["detection_confidence"]),
        "bbox": list(map(_rounded, row["box"])),
    }
    top_k, _ = _named(row)
    if row["detection_category"] in NOT_ANIMALS or top_k is None:
        return box
    return box | {"classifications": _classifications(top_k, classes)}


def _classifications(top_k: list[dict[str, Any]], classes: dict[str, str]) -> list[list[Any]]:
    return [[classes[each["species"]], _rounded(each["probability"])] for each in top_k]


def _rounded(value: float) -> float:
    return round(min(float(value), 1.0), _DIGITS)


def _numbers(names: Sequence[str]) -> dict[str, str]:
    """Return the number of each category: of MegaDetector's own, and further ones for what another detector names."""
    numbers = {name: number for number, name in _STANDARD_CATEGORIES.items()}
    for name in sorted(set(names) - numbers.keys()):
        numbers[name] = str(len(numbers) + 1)
    return numbers


def _info(source: Results, pooled: bool) -> dict[str, Any]:
    digest = source.computed.get("detections_sha256")
    return {
        "format_version": FORMAT_VERSION,
        "detector": f"detections sha256:{digest}" if digest else "none: one box around each image",
        "classifier": source.classifier() + (", mean over each event" if pooled else ""),
        "classification_completion_time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
    }
