"""Results as a table that DuckDB reads in place, with its rows counted against the ledger."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from trapline.analysis import sql
from trapline.errors import OutputConflict, UsageError
from trapline.results import footer, ledger
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import CLASSES_KEY, Footer
from trapline.results.ledger import Result
from trapline.sources.shards import FOLDER_OUTPUT
from trapline.storage import store

# What writes the columns that an option leaves out.
_REMEDIES = {
    "embedding": "run `trapline classify` over it with --embedding float32 --replace",
    "probabilities": "run `trapline classify` over it with --probabilities full --replace",
}


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

    def classifier(self, name: str | None = None) -> str:
        """Return what named the species: a name, or that of the network, with digests of the weights and of a head."""
        named = name or self.computed.get("architecture", {}).get("variant") or "Hiera"
        head = self.fingerprint.facts.get("head_sha256")
        head = f", head sha256:{head}" if head else ""
        return f"{named} (weights sha256:{self.computed.get('weights_sha256', 'unknown')}{head})"

    def refuse_crops(self, job: str) -> None:
        """Raise UsageError if there are rows of crops, for a job that takes a row for an image."""
        if self.has_crops:
            raise UsageError(
                f"{self.output}: holds crops (classified with --detections), and {job} needs one prediction per image; "
                "classify into another OUTPUT without --detections"
            )


def find(output: str) -> Results:
    """Find the results in OUTPUT; other files there do not count.

    Raises:
        UsageError: there are none.
        OutputConflict: they were computed in more than one way, so that their rows cannot be compared.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    output = store.absolute(output)
    files = tuple(result for result in ledger.survey(output) if result.shard)
    if not files:
        raise UsageError(f"{output}: holds no results; `trapline classify` writes them")
    # Those of shards without clips may have been written with any options for clips.
    with_clips = [result for result in files if result.fingerprint != result.image_fingerprint]
    ways = max(len({result.image_fingerprint for result in files}), len({result.fingerprint for result in with_clips}))
    if ways > 1:
        raise OutputConflict(
            f"{output}: its {len(files)} results were computed in {ways} ways (other weights or options), and "
            "cannot be compared; run `trapline classify` over all of it with --replace"
        )
    first = (with_clips or files)[0]
    file = footer.read_metadata(store.stat(first.url))
    metadata = (file and file.metadata) or {}
    said = Footer.from_metadata(metadata)
    if said is None:
        raise OutputConflict(f"{first.url}: was replaced while it was looked at; try again")
    return Results(output, files, said.fingerprint, tuple(json.loads(metadata[CLASSES_KEY.encode()])))


def shard_path(result: str, output: str) -> str:
    """Return the path of a shard below the input of `classify`, which the URL of its result below OUTPUT mirrors."""
    path = result.removeprefix(output).strip("/")
    is_folder = path.rpartition("/")[2] == FOLDER_OUTPUT
    return path.removesuffix(FOLDER_OUTPUT).strip("/") if is_folder else path.removesuffix(".parquet")


def shard_folder(result: str, output: str) -> str:
    """Return the path of the folder that holds a shard, below the input: for loose images, of the shard itself."""
    path = shard_path(result, output)
    return path if result.endswith(f"/{FOLDER_OUTPUT}") else path.rpartition("/")[0]


def columns(results: Results) -> list[str]:
    """Return the names of the columns that the rows have.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    return list(schema(results).names)


def schema(results: Results) -> pa.Schema:
    """Return the schema of the rows; raise as `columns` does."""
    file = footer.read_metadata(store.stat(results.files[0].url))
    return file.schema.to_arrow_schema() if file else pa.schema([])


def require_columns(results: Results, names: Iterable[str]) -> None:
    """Raise UsageError if the rows lack one of these columns.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    present = columns(results)
    if missing := [name for name in names if name not in present]:
        remedy = _REMEDIES.get(
            missing[0],
            "another version of Trapline wrote them: run `trapline classify`, or `rescore`, again with --replace",
        )
        if missing[0] in _REMEDIES and results.computed is not results.fingerprint.facts:
            remedy = f"they are rescored: give the results that they were made from ({results.files[0].shard})"
        raise UsageError(f"{results.output}: its rows have no column {missing[0]}; {remedy}")


def own_rows(columns: Iterable[str]) -> str:
    """Return the SQL condition that leaves each picture and each clip once, without rows of crops and of frames.

    Args:
        columns: of the rows; results without crops have no column of them, nor those of older versions one of frames.
    """
    conditions = [f"{name} IS NULL" for name in ("frame_seconds", "crop") if name in set(columns)]
    return " AND ".join(conditions) or "true"


def without_frames(connection: duckdb.DuckDBPyConnection, urls: Iterable[str]) -> str:
    """Return a relation in SQL: the rows of images, clips and crops in result files, without those of frames."""
    rows = sql.read_parquet(urls)
    has_frames = "frame_seconds" in connection.sql(f"FROM {rows} LIMIT 0").columns
    return f"(FROM {rows} WHERE frame_seconds IS NULL)" if has_frames else rows


def view(
    connection: duckdb.DuckDBPyConnection,
    results: Results,
    name: str = "images",
    crops: bool = False,
    frames: bool = False,
) -> None:
    """Make the rows of all images and clips a view, after counting them.

    Its columns are those of `results/schema.py`, and `filename` and `file_row_number`.

    Args:
        connection: of `sql.connect`.
        results: whose rows.
        name: of the view.
        crops: whether the rows of crops are in it, too.
        frames: whether the rows of the frames of clips are in it, too.

    Raises:
        UsageError: another version of Trapline wrote the results.
        OutputConflict: the files hold other rows than the ledger says.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    require_columns(results, ["shard"])
    rows = sql.read_parquet(file.url for file in results.files)
    present = columns(results)
    left_out = {column for column, kept in (("crop", crops), ("frame_seconds", frames)) if not kept}
    with sql.translated(results.output):
        wanted = own_rows(left_out.intersection(present))
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS FROM {rows} WHERE {wanted}")
        images = f"FROM {rows} WHERE {own_rows(present)}"
        counted = connection.execute(f"SELECT filename, count(*) FROM ({images}) GROUP BY filename").fetchall()
    require_all(results, dict(counted))


def require_all(results: Results, images: Mapping[str, int]) -> None:
    """Raise OutputConflict unless as many images were read of each file as the ledger says.

    Args:
        results: what the ledger says.
        images: file -> images that were read of it; a file without any need not be there.
    """
    for file in results.files:
        require_images(file.url, images.get(file.url, 0), file.images)
    if strangers := images.keys() - {file.url for file in results.files}:
        raise OutputConflict(f"{min(strangers)}: was read, and is none of the results in {results.output}")


def require_images(url: str, found: int, said: int) -> None:
    """Raise OutputConflict if another number of images was read of a result file than its footer says."""
    if found != said:
        raise OutputConflict(
            f"{url}: {found:,} images were read of it, and its footer says {said:,}; if `classify` is writing there, "
            "try again later; `trapline verify` checks every file"
        )
