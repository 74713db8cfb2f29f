"""What `classify` has written, as a table that DuckDB reads where it lies: where the jobs after it begin."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from trapline.errors import OutputConflict, StorageError, TransientError, UsageError, in_one_line
from trapline.results import ledger
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import CLASSES_KEY, Footer
from trapline.results.ledger import Result
from trapline.sources.shards import FOLDER_OUTPUT
from trapline.storage import store


@dataclass(frozen=True)
class Results:
    """The result files below an OUTPUT, all computed in one way.

    Attributes:
        output: where they lie.
        files: by name; at least one.
        fingerprint: how their rows were computed.
        classes: names of the C classes, in the order of `probabilities`; empty for a model without classifier.
    """

    output: str
    files: tuple[Result, ...]
    fingerprint: Fingerprint
    classes: tuple[str, ...]

    @property
    def has_crops(self) -> bool:
        """Return whether rows of crops stand among those of the images."""
        return "detections_sha256" in self.computed

    @property
    def computed(self) -> Mapping[str, Any]:
        """Return the facts of the run of `classify` from which the rows stem, also where they were rescored since."""
        facts: Mapping[str, Any] = self.fingerprint.facts
        while "rescored" in facts:
            facts = facts["rescored"]
        return facts

    def refuse_crops(self, job: str) -> None:
        """Raises UsageError where there are rows of crops, for a job that takes a row for an image."""
        if self.has_crops:
            raise UsageError(
                f"{self.output}: holds crops (classified with --detections), and {job} needs one prediction per image; "
                "classify into another OUTPUT without --detections"
            )


def find(output: str) -> Results:
    """The results in OUTPUT; what else lies there is passed over.

    Raises:
        UsageError: there are none.
        OutputConflict: they were computed in more than one way, so that their rows cannot be compared.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    output = store.absolute(output)
    files = tuple(result for result in ledger.survey(output) if result.shard)
    if not files:
        raise UsageError(f"{output}: holds no results; `trapline classify` writes them")
    ways = Counter(result.fingerprint for result in files)
    if len(ways) > 1:
        raise OutputConflict(
            f"{output}: its {len(files)} results were computed in {len(ways)} ways (other weights or options), and "
            "cannot be compared; run `trapline classify` over all of it with --replace"
        )
    with store.open_tail(files[0].url) as stream:
        metadata = pq.ParquetFile(stream).metadata.metadata
    footer = Footer.from_metadata(metadata)
    if footer is None:
        raise OutputConflict(f"{files[0].url}: was replaced while it was looked at; try again")
    return Results(output, files, footer.fingerprint, tuple(json.loads(metadata[CLASSES_KEY.encode()])))


def shard_path(result: str, output: str) -> str:
    """Return the path of a shard below the input of `classify`, which the URL of its result below OUTPUT mirrors."""
    path = result.removeprefix(output).strip("/")
    is_folder = path.rpartition("/")[2] == FOLDER_OUTPUT
    return path.removesuffix(FOLDER_OUTPUT).strip("/") if is_folder else path.removesuffix(".parquet")


def check_count(results: Results, images: int) -> None:
    """Raise TransientError where another number of images was read than the footers of the result files name."""
    expected = sum(file.images for file in results.files)
    if images != expected:
        raise TransientError(
            f"{results.output}: has {expected:,} images, and {images:,} were read; run it again when `classify` is done"
        )


def require_columns(results: Results, names: Iterable[str]) -> None:
    """Raise UsageError where the rows lack one of these columns; raises StorageError, TransientError as well."""
    with store.open_tail(results.files[0].url) as stream:
        present = pq.ParquetFile(stream).schema_arrow.names
    if missing := [name for name in names if name not in present]:
        raise UsageError(
            f"{results.output}: its rows have no column {missing[0]}; another version of Trapline wrote them: run "
            "`trapline classify`, or `rescore`, again with --replace"
        )


def connect(*urls: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that reads and writes the stores of these URLs, through the same clients as all of Trapline.

    What does not fit into 80 % of the machine's memory goes to a temporary folder; `SET memory_limit` sets another
    bound.
    """
    connection = duckdb.connect()
    for remote in {id(fs): fs for fs in map(store.remote, urls) if fs}.values():
        connection.register_filesystem(remote)
    return connection


def view(connection: duckdb.DuckDBPyConnection, results: Results, name: str = "images") -> None:
    """Make the rows of all images a view, in the schema of `results/rows.py`, without those of crops; read nothing."""
    urls = [result.url for result in results.files]
    rows = connection.read_parquet(urls, hive_partitioning=False, union_by_name=False)
    (rows.filter("crop IS NULL") if results.has_crops else rows).create_view(name)


@contextmanager
def reading(place: str) -> Iterator[None]:
    """What DuckDB says of files that it cannot read, or of a full disk, as our error that names the place."""
    try:
        yield
    except (duckdb.OperationalError, duckdb.InvalidInputException, pa.ArrowException, OSError) as error:
        raise StorageError(f"{place}: {in_one_line(error)}; if `classify` is writing there, try again later") from error


def stream(connection: duckdb.DuckDBPyConnection, sql: str, most: int, place: str) -> Iterator[pa.RecordBatch]:
    """What a query gives, at most so many rows at a time; raises as `reading` does, whenever it is read."""
    with reading(place):
        yield from connection.sql(sql).to_arrow_reader(most)
