"""Labels become examples: a user's labels of images, joined with what the results store of these images.

Examples are split by camera, never by image: frames of one camera share background, light and individuals, and a split
between them measures memory.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trapline.analysis.dataset import Results
from trapline.analysis.rescoring.label_file import RESPELLED, Labels
from trapline.errors import UsageError
from trapline.results.ledger import Result
from trapline.results.rows import without_frames
from trapline.storage import store

# Files that are read at the same time: hides the store's latency.
_THREADS = 4
# Share of the cameras that is held out, at least one.
_HELD_OUT = 0.2


@dataclass(frozen=True)
class Examples:
    """N labelled images, in the order of their labels.

    Attributes:
        uris: of the images.
        contents: SHA-256 of the images, in hex; empty where there is none.
        species: the label.
        cameras: which camera took it: from the labels, or `camera_serial`, or the shard's folder, in this order.
        vectors: float32 [N, D], embeddings or probabilities.
        given: how many labels there were.
        unusable: labels of images without a vector, as failed ones are, or of one that is not finite.
        repeated: labels of images whose content another label had already; they count once.
        ambiguous: labels whose path is the end of several images' paths.
    """

    uris: npt.NDArray[np.object_]
    contents: npt.NDArray[np.object_]
    species: npt.NDArray[np.object_]
    cameras: npt.NDArray[np.object_]
    vectors: npt.NDArray[np.float32] = field(repr=False)
    given: int
    unusable: int = 0
    repeated: int = 0
    ambiguous: int = 0

    def __len__(self) -> int:
        return len(self.uris)

    def where(self, mask: npt.NDArray[np.bool_]) -> "Examples":
        """Return those where the mask, bool [N], is true."""
        parts = {name: getattr(self, name)[mask] for name in ("uris", "contents", "species", "cameras", "vectors")}
        return replace(self, **parts)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the labels, in hex; vectors are left out, since they follow from the results."""
        digest = hashlib.sha256()
        for row in zip(self.uris, self.contents, self.species, self.cameras, strict=True):
            digest.update("\0".join([*row, "\n"]).encode())
        return digest.hexdigest()


def join(labels: Labels, results: Results, vector: str) -> Examples:
    """Return the labelled images, with the embeddings or the probabilities that are stored of them.

    Where all labels name their shard, other files are not opened. Memory holds the examples and some row groups.

    Args:
        labels: which images.
        results: what is stored of them.
        vector: the column to take: `embedding` or `probabilities`.

    Raises:
        UsageError: no label names one usable row, or two labels give the same content different species.
        TransientError: a result was replaced meanwhile, or the store did not answer.
        StorageError: the store refuses.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        tables = threads.map(lambda result: _matches(result, results, labels, vector), _concerned(labels, results))
        found = [table for table in tables if table]
    if not found:
        raise UsageError(
            f"{labels.url}: none of its {len(labels.keys):,} labels names an image in {results.output} by its "
            f"{labels.column}; the first is {_shown(labels.keys[0])}, and an image there is {_example(labels, results)}"
        )
    table, ambiguous = _unambiguous(labels, pa.concat_tables(found))
    usable = table.filter(pc.and_(table.column(vector).is_valid(), _finite(table.column(vector))))
    unusable = len(set(table.column("label").to_pylist()) - set(usable.column("label").to_pylist()))
    if not usable:
        raise UsageError(f"{labels.url}: all {unusable:,} images that it labels and {results.output} holds are failed")
    return replace(_once(labels, usable, vector, unusable), ambiguous=ambiguous)


def held_out(cameras: Sequence[str], species: Sequence[str] | None = None) -> set[str]:
    """Return a fifth of the cameras, at least one but never all: the first by the hash of their names.

    Args:
        cameras: of each example.
        species: of each example, where species are to be learned: a camera that alone has one of them is not held out.

    Returns:
        Cameras to evaluate on, whose examples are not used in training; empty where each camera is needed.
    """
    everyone = sorted(set(cameras), key=lambda camera: hashlib.sha256(camera.encode()).digest())
    seen: dict[str, set[str]] = defaultdict(set)
    owners: dict[str, set[str]] = defaultdict(set)
    for camera, name in zip(cameras, species or [], strict=species is not None):
        seen[camera].add(name)
        owners[name].add(camera)
    chosen: set[str] = set()
    for camera in everyone:
        if len(chosen) >= min(max(1, round(_HELD_OUT * len(everyone))), len(everyone) - 1):
            break
        if all(owners[name] - chosen - {camera} for name in seen[camera]):
            chosen.add(camera)
    return chosen


def _concerned(labels: Labels, results: Results) -> list[Result]:
    """Return the result files that may hold labelled rows: those of the shards, where all labels name theirs."""
    if labels.column != "image_uri":
        return list(results.files)
    # Rescored rows lie in files that name another file, and not the shard.
    known = {result.shard for result in results.files}
    named: set[str] = set()
    for uri in labels.keys.to_pylist():
        # `shard#key`, where both may hold a # of their own.
        shards = {uri[:end] for end, letter in enumerate(uri) if letter == "#"} & known
        if not shards:
            return list(results.files)
        named |= shards
    return [result for result in results.files if result.shard in named]


def _matches(result: Result, results: Results, labels: Labels, vector: str) -> pa.Table | None:
    """Return the labelled rows of one file: label (a position), grade, image_uri, content, camera and vector."""
    folder = result.url.removeprefix(results.output).rpartition("/")[0] or "/"
    found = []
    with store.open_unchanged(result.url, result.version) as stream:
        file = pq.ParquetFile(stream)
        names = ["image_uri", "content_sha256", "camera_serial", vector]
        present = file.schema_arrow.names
        names, frames = [name for name in names if name in present], {"frame_seconds"} & {*present}
        for group in range(file.num_row_groups):
            keys = without_frames(file.read_row_group(group, columns=[labels.column, *frames]))
            matches = labels.matches(keys.column(labels.column).combine_chunks())
            if len(matches):
                rows = without_frames(file.read_row_group(group, columns=[*names, *frames]))
                rows = rows.take(matches.column("row"))
                found.append(_facts(rows, matches, labels, vector, folder))
    return pa.concat_tables(found) if found else None


def _finite(vectors: pa.ChunkedArray) -> pa.Array:
    """Return which vectors have finite numbers only; those that are null are among them."""
    lists = vectors.combine_chunks()
    wrong = pc.list_parent_indices(lists).filter(pc.invert(pc.is_finite(lists.flatten().cast(pa.float32()))))
    return pa.array(~np.isin(np.arange(len(lists)), wrong.to_numpy()))


def _unambiguous(labels: Labels, found: pa.Table) -> tuple[pa.Table, int]:
    """Return the rows of labels that name one image, in the order of the labels, and how many name several.

    Raises:
        UsageError: all of them name several.
    """
    found = found.sort_by([("label", "ascending"), ("image_uri", "ascending")])
    label, grade = (found.column(name).to_numpy() for name in ("label", "grade"))
    # A path in full is not the end of a longer one, nor is one that fits letter by letter another in other case.
    best = np.full(len(labels.keys), np.iinfo(np.int8).max)
    np.minimum.at(best, label, grade)
    # An image that a label names letter by letter is none that another one misspells.
    uris = found.column("image_uri")
    named = pc.is_in(uris, uris.filter(pa.array(grade < RESPELLED)).combine_chunks()).to_numpy()
    kept = (grade == best[label]) & ((grade < RESPELLED) | ~named)
    found = found.filter(pa.array(kept)).drop_columns(["grade"])
    if labels.column != "image_uri":  # copies of one picture
        return found, 0
    label = found.column("label").to_numpy()
    several = np.flatnonzero(np.bincount(label) > 1)
    single = found.filter(pa.array(~np.isin(label, several)))
    if not len(single):
        uris = found.column("image_uri").to_pylist()[:2]
        raise UsageError(
            f"{labels.url}: each of its labels fits several images, such as {_shown(labels.keys[int(several[0])])}: "
            f"{uris[0]} and {uris[1]}; write more of the path"
        )
    return single, len(several)


def _facts(rows: pa.Table, matches: pa.Table, labels: Labels, vector: str, folder: str) -> pa.Table:
    cameras = labels.cameras.take(matches.column("label").combine_chunks())
    if "camera_serial" in rows.column_names:
        cameras = pc.coalesce(cameras, rows.column("camera_serial").cast(pa.string()).combine_chunks())
    contents = [value.hex() if value else "" for value in rows.column("content_sha256").to_pylist()]
    return pa.table(
        {
            "label": matches.column("label"),
            "grade": matches.column("grade"),
            "image_uri": rows.column("image_uri"),
            "content": pa.array(contents, pa.string()),
            "camera": pc.coalesce(cameras, folder),
            vector: rows.column(vector),
        }
    )


def _once(labels: Labels, rows: pa.Table, vector: str, unusable: int) -> Examples:
    """Return each label and each content once: copies in a held-out camera would leak training data."""
    species = np.array(labels.species.to_pylist(), dtype=object)[rows.column("label").to_numpy()]
    uris, contents = (np.array(rows.column(name).to_pylist(), dtype=object) for name in ("image_uri", "content"))
    seen: dict[str, int] = {}
    kept = np.zeros(len(rows), bool)
    for row, (uri, content, name) in enumerate(zip(uris, contents, species, strict=True)):
        first = seen.setdefault(content or uri, row)
        kept[row] = first == row
        if species[first] != name:
            raise UsageError(
                f"{labels.url}: calls the same picture {species[first]!r} in {uris[first]} and {name!r} in {uri}; "
                "leave one of the labels"
            )
    lists = rows.column(vector).combine_chunks()
    vectors = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)[kept].astype(np.float32)
    positions = rows.column("label").to_numpy()
    repeated = len(np.unique(positions)) - len(np.unique(positions[kept]))
    cameras = np.array(rows.column("camera").to_pylist(), dtype=object)[kept]
    return Examples(uris[kept], contents[kept], species[kept], cameras, vectors, len(labels.keys), unusable, repeated)


def _example(labels: Labels, results: Results) -> str:
    """Return what a row has in the column of the keys."""
    with store.open_unchanged(results.files[0].url, results.files[0].version) as stream:
        values = next(pq.ParquetFile(stream).iter_batches(1, columns=[labels.column]), None)
    return _shown(values.column(0)[0]) if values else "none"


def _shown(key: pa.Scalar) -> str:
    value = key.as_py()
    return value.hex() if isinstance(value, bytes) else str(value)
