"""Measure what a query costs on S3, over a result file for each shard, and over the files of `trapline tables`."""

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from time import perf_counter
from typing import Any

import duckdb
import numpy as np
from rich.console import Console
from s3fs import S3FileSystem

from trapline.analysis import dataset
from trapline.analysis.flat_tables import build
from trapline.decoding.decode import Facts
from trapline.model.predictions import Predictions
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import Footer
from trapline.results.parquet import write
from trapline.results.rows import image_rows, table, with_predictions
from trapline.results.schema import Columns
from trapline.sources.records import Record
from trapline.storage import store

# Classes and widths of the reference model: their names are most of a footer.
_COLUMNS = Columns(tuple(f"Species number {n}" for n in range(707)), 768, {}, 5, True, "float32")
_MARK = Fingerprint({"weights_sha256": "ab" * 32, "top_k": 5})
_WRITERS = 4
_SITES = 100
_SITE = 7  # that is asked about
_START = datetime(2024, 5, 17)
_SPECIES = "SELECT species, count(*) FROM {relation} WHERE {condition} GROUP BY species ORDER BY ALL"
# Of results by the folders that are read, and of tables by a condition.
QUESTIONS = {
    "species of the archive": ("**", "true"),
    "species of a site": (f"site={_SITE:03}", f"folder = 'site={_SITE:03}'"),
}
# Shards share so many sets of predictions: drawing them takes longer than writing the file.
_PREDICTIONS = 16


@dataclass(frozen=True)
class Row:
    """A question.

    Attributes:
        question: what was asked.
        over: of what.
        files: that it holds.
        heads, gets, lists: requests to the store.
        megabytes: received, of files.
        seconds: it took.
    """

    question: str
    over: str
    files: int
    heads: int
    gets: int
    lists: int
    megabytes: float
    seconds: float

    @property
    def requests(self) -> int:
        """Return the number of all kinds."""
        return self.heads + self.gets + self.lists


class Requests:
    """The requests of an s3fs with its defaults, counted where they are sent.

    Attributes:
        sent: by kind.
        bytes: of files, received.
    """

    def __init__(self, s3: S3FileSystem) -> None:
        self.sent: Counter[str] = Counter()
        self.bytes = 0
        s3.connect()
        s3.s3.meta.events.register("before-send.s3", self._count)
        s3.s3.meta.events.register("after-call.s3.GetObject", self._weigh)

    def _count(self, request: Any, **_: Any) -> None:
        self.sent["LIST" if "list-type=2" in request.url else request.method] += 1

    def _weigh(self, parsed: dict[str, Any], **_: Any) -> None:
        self.bytes += int(parsed.get("ContentLength", 0))


def measure(console: Console, place: str, shards: int, images: int) -> list[Row]:
    """Write results and tables, and put each question to both.

    Args:
        console: shows what is going on.
        place: an empty folder on S3; it stays as it is then.
        shards: how many result files.
        images: in each.

    Raises:
        FatalError: the store refuses.
    """
    results, tables = store.join(place, "results"), store.join(place, "tables")
    with console.status(f"write {shards:,} results"), ThreadPoolExecutor(_WRITERS) as threads:
        for _ in threads.map(lambda number: _write(results, number, images), range(shards)):
            pass
    with console.status("write tables"):
        account = build.build(dataset.find(results), tables)
    rows = []
    for question, (folder, condition) in QUESTIONS.items():
        files = shards if folder == "**" else len(range(_SITE, shards, _SITES))
        # Partitions are off, as docs/recipes.md has it.
        over_results = f"read_parquet('{results}/{folder}/*.parquet', hive_partitioning = false)"
        asked = {
            "results": (files, _SPECIES.format(relation=over_results, condition="true")),
            "tables": (
                account.files,
                _SPECIES.format(relation=f"read_parquet('{tables}/*.parquet')", condition=condition),
            ),
        }
        answers = []
        for over, (count, query) in asked.items():
            with console.status(f"{question}, of {over}"):
                row, answer = _ask(question, over, count, query)
            rows.append(row)
            answers.append(answer)
        if answers[0] != answers[1]:
            raise AssertionError(f"{question}: results and tables give different answers")
    return rows


def _ask(question: str, over: str, files: int, query: str) -> tuple[Row, list[tuple[Any, ...]]]:
    # As people have it, and as a new process has it: nothing is in a cache.
    s3 = S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    requests = Requests(s3)
    with duckdb.connect() as connection:
        connection.register_filesystem(s3)
        started = perf_counter()
        answer = connection.execute(query).fetchall()
        seconds = perf_counter() - started
    sent = requests.sent
    row = Row(question, over, files, sent["HEAD"], sent["GET"], sent["LIST"], requests.bytes / 1e6, seconds)
    return row, answer


def _write(results: str, number: int, images: int) -> None:
    name = f"site={number % _SITES:03}/{number:06}.tar"
    uri = f"s3://archive/{name}"
    taken = [_START + timedelta(hours=number, minutes=minute) for minute in range(images)]
    digests = [hashlib.sha256(f"{number} {minute}".encode()).digest() for minute in range(images)]
    facts = [
        Facts("ok", None, digest, 4000, 3000, "jpeg", time, camera_model="HP2X")
        for digest, time in zip(digests, taken, strict=True)
    ]
    records = [Record(f"DCIM/{minute:04}.jpg", None) for minute in range(images)]
    rows = with_predictions(
        image_rows(uri, records, facts), _predictions(number // _SITES % _PREDICTIONS, images), _COLUMNS
    )
    footer = Footer(uri, f"{number}-e", _MARK, {"ok": images, "salvaged": 0, "failed": 0})
    write(f"{results}/{name}.parquet", table([rows], _COLUMNS), footer, _COLUMNS.classes)


@cache
def _predictions(seed: int, images: int) -> Predictions:
    rng = np.random.default_rng(seed)
    return Predictions(
        probabilities=rng.dirichlet(np.full(len(_COLUMNS.classes), 0.02), size=images).astype(np.float32),
        energy=rng.normal(size=images).astype(np.float32),
        embedding=rng.normal(size=(images, _COLUMNS.embedding_size)).astype(np.float32),
        features={},
    )
