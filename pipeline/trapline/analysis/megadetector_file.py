"""Write results in the batch output format of MegaDetector, which Timelapse, AddaxAI and MegaDetector's own tools open.

Format 1.4: https://lila.science/megadetector-output-format. Each image has its boxes, each box the detector's category
and confidence, and the most probable classes with their probabilities. An image that was classified without boxes has
one box around all of it, of the category `animal`, whose confidence is the probability of the first class.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from trapline.analysis import dataset
from trapline.analysis.dataset import Results
from trapline.analysis.sql import connect, literal, stream, translated
from trapline.errors import OutputConflict, StorageError, UsageError
from trapline.storage import store

FORMAT_VERSION = "1.4"

_STANDARD_CATEGORIES = {"1": "animal", "2": "person", "3": "vehicle"}
# Categories of a detector that classifiers of species are not asked about.
_UNCLASSIFIED = ("person", "human", "vehicle")
_ROWS_AT_ONCE = 2**14
# MegaDetector writes three digits of a confidence and four of a coordinate; four are a third of a pixel in 3,000.
_DIGITS = 4


@dataclass(frozen=True)
class Account:
    """What was written.

    Attributes:
        images: entries of the file.
        boxes: in all of them.
        failures: images that could not be read.
    """

    images: int
    boxes: int
    failures: int


def write(source: Results, url: str, replace: bool = False) -> Account:
    """Write all images of the results to one JSON file; memory holds a batch of rows.

    Args:
        source: the results of `classify` or `rescore`.
        url: of the file.
        replace: overwrite a file that is there.

    Raises:
        UsageError: the model has no classes.
        OutputConflict: the file is there.
        StorageError, TransientError: a store refuses, or does not answer; or the results changed meanwhile.
    """
    url = store.absolute(url)
    if not source.classes:
        raise UsageError(f"{source.output}: its model has no classes, so there are no classifications to write")
    if not replace and _is_there(url):
        raise OutputConflict(f"{url}: is there; choose another file, or overwrite it with --replace")
    with TemporaryDirectory(prefix="trapline-") as scratch, translated(source.output):
        connection = connect()
        connection.execute(f"set temp_directory = {literal(scratch)}")
        _define_rows(connection, source)
        path = Path(scratch, "detections.json")
        account, found = _write(connection, source, path)
        dataset.check_count(source, found)
        store.put_file(url, str(path))
    return account


def _is_there(url: str) -> bool:
    try:
        store.stat(url)
    except StorageError:
        return False
    return True


def _define_rows(connection: duckdb.DuckDBPyConnection, source: Results) -> None:
    crops = "crop, box, detection_confidence, detection_category"
    none = "null as crop, null::float[] as box, null::float as detection_confidence, null as detection_category"
    connection.execute(f"""
        create temp view result_rows as
        select image_uri, key, status, error, probability, top_k, {crops if source.has_crops else none},
            filename, file_row_number
        from {dataset.without_frames(connection, [file.url for file in source.files])}""")


def _write(connection: duckdb.DuckDBPyConnection, source: Results, path: Path) -> tuple[Account, int]:
    """Write the file; return what it holds, and the number of images that were read."""
    found = connection.sql("select distinct detection_category from result_rows where crop is not null").fetchall()
    numbers = _numbers([name for (name,) in found if name])
    classes = {name: str(number) for number, name in enumerate(source.classes)}
    images = boxes = failures = read = 0
    with path.open("w", encoding="utf-8") as file:
        head = {
            "info": _info(source),
            "detection_categories": {number: name for name, number in numbers.items()},
            "classification_categories": {number: name for name, number in classes.items()},
        }
        file.write(json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "images": [')
        for rows in _images(connection, source):
            read += 1
            if not rows[0]["key"]:  # the row that names the break of a shard
                continue
            entry = _entry(rows, dataset.shard_path(rows[0]["filename"], source.output), numbers, classes)
            file.write(("," if images else "") + "\n  " + json.dumps(entry, ensure_ascii=False))
            images += 1
            boxes += len(entry.get("detections", ()))
            failures += "failure" in entry
        file.write("\n ]\n}\n")
    return Account(images, boxes, failures), read


def _images(connection: duckdb.DuckDBPyConnection, source: Results) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each image, its own first."""
    query = "from result_rows order by filename, file_row_number"
    batches = stream(connection, query, _ROWS_AT_ONCE, source.output)
    rows = (row for batch in batches for row in batch.to_pylist())
    for _, group in groupby(rows, key=itemgetter("image_uri")):
        yield list(group)


def _entry(
    rows: Sequence[dict[str, Any]], shard: str, numbers: dict[str, str], classes: dict[str, str]
) -> dict[str, Any]:
    image, *crops = rows
    entry: dict[str, Any] = {"file": "/".join(filter(None, (shard, image["key"])))}
    if image["status"] == "failed":
        return entry | {"failure": image["error"]}
    if crops:
        return entry | {"detections": [_box(row, numbers, classes) for row in crops]}
    if image["top_k"] is None:
        return entry | {"detections": []}
    whole = {"category": numbers["animal"], "conf": _rounded(image["probability"]), "bbox": [0.0, 0.0, 1.0, 1.0]}
    return entry | {"detections": [whole | {"classifications": _classifications(image, classes)}]}


def _box(row: dict[str, Any], numbers: dict[str, str], classes: dict[str, str]) -> dict[str, Any]:
    box = {
        "category": numbers[row["detection_category"]],
        "conf": _rounded(row["detection_confidence"]),
        "bbox": list(map(_rounded, row["box"])),
    }
    if row["detection_category"] in _UNCLASSIFIED or row["top_k"] is None:
        return box
    return box | {"classifications": _classifications(row, classes)}


def _classifications(row: dict[str, Any], classes: dict[str, str]) -> list[list[Any]]:
    return [[classes[each["species"]], _rounded(each["probability"])] for each in row["top_k"]]


def _rounded(value: float) -> float:
    return round(min(value, 1.0), _DIGITS)


def _numbers(names: Sequence[str]) -> dict[str, str]:
    """Return the number of each category: of MegaDetector's own, and further ones for what another detector names."""
    numbers = {name: number for number, name in _STANDARD_CATEGORIES.items()}
    for name in sorted(set(names) - numbers.keys()):
        numbers[name] = str(len(numbers) + 1)
    return numbers


def _info(source: Results) -> dict[str, Any]:
    facts = source.computed
    variant = facts.get("architecture", {}).get("variant", "Hiera")
    digest = facts.get("detections_sha256")
    return {
        "format_version": FORMAT_VERSION,
        "detector": f"detections sha256:{digest}" if digest else "none: one box around each image",
        "classifier": f"{variant} (weights sha256:{facts.get('weights_sha256', 'unknown')})",
        "classification_completion_time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
    }
