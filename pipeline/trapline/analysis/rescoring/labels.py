"""Labels become examples: what people called some images, joined to what the model stored of them.

Examples are split by camera, never by image: frames of one camera share background, light and individuals, and a split
between them measures memory.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trapline.analysis import csv_input
from trapline.analysis.dataset import Results
from trapline.errors import UsageError
from trapline.results.ledger import Result
from trapline.storage import store

# Files that are read at the same time: hides the store's latency.
_THREADS = 4
# Of the cameras, at least one.
_HELD_OUT = 0.2


@dataclass(frozen=True)
class Labels:
    """A CSV file of labels.

    Attributes:
        url: of the file.
        column: what names an image: `image_uri` or `content_sha256`.
        keys: strings, or binary(32); each once.
        species: strings, one per key.
        cameras: likewise, null where the file does not say.
    """

    url: str
    column: str
    keys: pa.Array
    species: pa.Array
    cameras: pa.Array


@dataclass(frozen=True)
class Examples:
    """N labelled images, in the order of their labels.

    Attributes:
        uris: of the images.
        contents: SHA-256 of the images, in hex; empty where there is none.
        species: the label.
        cameras: which camera took it: what the labels say, or else `camera_serial`, or else the shard's folder.
        vectors: float32 [N, D], embeddings or probabilities.
        given: how many labels there were.
        unusable: labels of failed images, which have no vector.
        repeated: labels of images whose content another label had already; they count once.
    """

    uris: npt.NDArray[np.object_]
    contents: npt.NDArray[np.object_]
    species: npt.NDArray[np.object_]
    cameras: npt.NDArray[np.object_]
    vectors: npt.NDArray[np.float32] = field(repr=False)
    given: int
    unusable: int = 0
    repeated: int = 0

    def __len__(self) -> int:
        return len(self.uris)

    def where(self, mask: npt.NDArray[np.bool_]) -> "Examples":
        """Some of them."""
        return Examples(
            self.uris[mask], self.contents[mask], self.species[mask], self.cameras[mask], self.vectors[mask],
            self.given, self.unusable, self.repeated,
        )  # fmt: skip

    @property
    def digest(self) -> str:
        """SHA-256 of who is labelled what, in hex; not of the vectors, which follow from the results."""
        digest = hashlib.sha256()
        for row in zip(self.uris, self.contents, self.species, self.cameras, strict=True):
            digest.update("\0".join([*row, "\n"]).encode())
        return digest.hexdigest()


def read(url: str) -> Labels:
    """Labels out of a CSV file with the columns species, image_uri or content_sha256 (hex), and, if you like, camera.

    Raises:
        UsageError: a row lacks its key or species, an image is labelled twice, or a hash is none.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    table = csv_input.read(url, ["species"], ["image_uri", "content_sha256", "camera"])
    column = next((name for name in ("image_uri", "content_sha256") if name in table.column_names), None)
    if column is None:
        raise UsageError(f"{url}: has neither a column 'image_uri' nor 'content_sha256'; add one")
    keys, species = table.column(column).to_pylist(), table.column("species").to_pylist()
    seen: dict[str, int] = {}
    for position, (key, name) in enumerate(zip(keys, species, strict=True)):
        where = f"{url}, line {csv_input.line(table, position)}"
        if not key or not name:
            raise UsageError(f"{where}: lacks {'species' if key else column}; fill it in, or leave the line out")
        first = seen.setdefault(key.lower() if column == "content_sha256" else key, position)
        if first != position:
            other = f"also labelled on line {csv_input.line(table, first)}"
            as_ = "the same" if species[first] == name else f"{species[first]!r} there and {name!r} here"
            raise UsageError(f"{where}: {key} is {other} ({as_}); leave one")
    cameras = table.column("camera").to_pylist() if "camera" in table.column_names else [None] * len(keys)
    values = _hashes(url, table, keys) if column == "content_sha256" else pa.array(keys, pa.string())
    return Labels(url, column, values, pa.array(species, pa.string()), pa.array(cameras, pa.string()))


def join(labels: Labels, results: Results, vector: str) -> Examples:
    """The labelled images, with the embeddings or the probabilities that are stored of them.

    Files whose shard no label names are not opened. Memory is bounded by the examples and some row groups.

    Args:
        labels: which images.
        results: what is stored of them.
        vector: the column to take: `embedding` or `probabilities`.

    Raises:
        UsageError: no label matches a usable row, or two labels call the same content differently.
        TransientError: a result was replaced meanwhile, or the store did not answer.
        StorageError: the store refuses.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        tables = threads.map(lambda result: _matches(result, results, labels, vector), _concerned(labels, results))
        found = [table for table in tables if table]
    if not found:
        raise UsageError(
            f"{labels.url}: none of its {len(labels.keys):,} labels names an image in {results.output} by its "
            f"{labels.column}; the first is {_shown(labels.keys[0])}"
        )
    table = pa.concat_tables(found).sort_by([("label", "ascending"), ("image_uri", "ascending")])
    usable = table.filter(table.column(vector).is_valid())
    unusable = len(set(table.column("label").to_pylist()) - set(usable.column("label").to_pylist()))
    if not usable:
        raise UsageError(f"{labels.url}: all {unusable:,} images that it labels and {results.output} holds are failed")
    return _once(labels, usable, vector, unusable)


def held_out(cameras: Sequence[str], species: Sequence[str] | None = None) -> set[str]:
    """A fifth of the cameras, at least one but never all, and always the same: the first by the hash of their names.

    Args:
        cameras: of each example.
        species: of each example, where species are to be learned: a camera that alone has one of them is passed over.

    Returns:
        Cameras to judge by, none of whose examples are to be learned from; empty where each camera is needed.
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


def _hashes(url: str, table: pa.Table, keys: list[str]) -> pa.Array:
    values = []
    for position, key in enumerate(keys):
        try:
            values.append(bytes.fromhex(key))
        except ValueError:
            values.append(b"")
        if len(values[-1]) != 32:
            raise UsageError(f"{url}, line {csv_input.line(table, position)}: {key} is no SHA-256 in hex (64 digits)")
    return pa.array(values, pa.binary(32))


def _concerned(labels: Labels, results: Results) -> list[Result]:
    """The result files that may hold labelled rows."""
    if labels.column != "image_uri":
        return list(results.files)
    # `shard#key`, where both may hold a # of their own.
    shards = {uri[:end] for uri in labels.keys.to_pylist() for end, letter in enumerate(uri) if letter == "#"}
    # Rows that were re-scored lie in files that name another file, and not the shard.
    return [result for result in results.files if result.shard in shards] or list(results.files)


def _matches(result: Result, results: Results, labels: Labels, vector: str) -> pa.Table | None:
    """The labelled rows of one file: position of the label, image_uri, content, camera, and the vector."""
    folder = result.url.removeprefix(results.output).rpartition("/")[0] or "/"
    found = []
    with store.open_unchanged(result.url, result.version) as stream:
        file = pq.ParquetFile(stream)
        names = ["image_uri", "content_sha256", "camera_serial", vector]
        names = [name for name in names if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            place = pc.index_in(file.read_row_group(group, columns=[labels.column]).column(0), labels.keys)
            if place.null_count < len(place):
                rows = file.read_row_group(group, columns=names).filter(place.is_valid())
                found.append(_facts(rows, place.drop_null(), labels, vector, folder))
    return pa.concat_tables(found) if found else None


def _facts(rows: pa.Table, place: pa.ChunkedArray, labels: Labels, vector: str, folder: str) -> pa.Table:
    cameras = labels.cameras.take(place.combine_chunks())
    if "camera_serial" in rows.column_names:
        cameras = pc.coalesce(cameras, rows.column("camera_serial").cast(pa.string()).combine_chunks())
    contents = [value.hex() if value else "" for value in rows.column("content_sha256").to_pylist()]
    return pa.table(
        {
            "label": place,
            "image_uri": rows.column("image_uri"),
            "content": pa.array(contents, pa.string()),
            "camera": pc.coalesce(cameras, folder),
            vector: rows.column(vector),
        }
    )


def _once(labels: Labels, rows: pa.Table, vector: str, unusable: int) -> Examples:
    """Each label, and each content, one time: a copy in a held-out camera would be judged from memory."""
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


def _shown(key: pa.Scalar) -> str:
    value = key.as_py()
    return value.hex() if isinstance(value, bytes) else str(value)
