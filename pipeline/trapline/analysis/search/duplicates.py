"""Find images and clips that an archive holds more than once: byte for byte, or nearly, by their embeddings.

A clip is compared once, by the mean of its frames, because its frames are nearly the same and would all be found.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import IO

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trapline.analysis import dataset
from trapline.analysis.dataset import Results
from trapline.analysis.sql import translated

# Rows that are compared at once, with each other and with the window before them. Windows mostly hold a handful, so
# that each row costs a product with the block: 0.8 MFLOP at 768 dimensions.
_BLOCK = 512
# Rows that are read at once: 25 MB.
_READ = 8192
# An image is compared with at most this many before it, in its window. No camera takes as many in a minute: this bounds
# memory and time where a clock has stopped, or where there is none.
REACH = 1024

_EMPTY = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class Near:
    """What was compared.

    Attributes:
        table: of the connection, a row for each pair: cosine; seconds between the two, null where there is no time;
            image_uri and near_uri, the earlier first.
        images: that were compared.
        cut: images with more than the 1,024 before them in their window that they were compared with.
    """

    table: str
    images: int
    cut: int


def exact(connection: duckdb.DuckDBPyConnection, results: Results) -> str:
    """List images with the same bytes, across all shards, in a table of the connection; raises StorageError.

    Its columns: group from 1, the largest first; copies in the group; image_uri; captured_at; content_sha256 in hex.
    Two passes over the digests: the first keeps each that there is, and DuckDB puts on disk what is too much. Files
    without bytes are all alike, and left out.

    Returns:
        The table's name.
    """
    query = """
        CREATE OR REPLACE TABLE exact AS
        WITH digests AS (
            SELECT content_sha256 FROM images WHERE content_sha256 IS NOT NULL AND content_sha256 != $empty::BLOB
            GROUP BY ALL HAVING count(*) > 1
        ), members AS (
            SELECT content_sha256, image_uri, captured_at,
                count(*) OVER (PARTITION BY content_sha256) AS copies,
                min(image_uri) OVER (PARTITION BY content_sha256) AS first
            FROM images SEMI JOIN digests USING (content_sha256)
        )
        SELECT dense_rank() OVER (ORDER BY copies DESC, first) AS "group", copies, image_uri, captured_at,
            lower(hex(content_sha256)) AS content_sha256
        FROM members
    """
    with translated(results.output):
        connection.execute(query, {"empty": _EMPTY})
    return "exact"


def near(connection: duckdb.DuckDBPyConnection, results: Results, threshold: float, window: float) -> Near:
    """List pairs of images whose embeddings have at least this cosine, of one camera and within a window of time.

    All pairs of ten million images are 5e13, which two cores would multiply for a week or so: hence the rule. A camera
    is a make, model and serial number as EXIF has them; cameras that say no serial number are compared with all of
    their model. Images without a time are compared with those of their shard that have none either, in its order.

    Embeddings go to a temporary file as they are read, 3 GB for a million of 768 dimensions (TMPDIR says where), and
    only their places are sorted: DuckDB's own sort of rows so wide ended with "failed to pin block" as soon as they did
    not fit its memory. What is held is one block, and the window before it.

    Args:
        connection: of `sql.connect`, with the view `images`.
        results: of that view.
        threshold: the least cosine.
        window: seconds.

    Raises:
        UsageError: the results have no embeddings.
        StorageError: DuckDB cannot read the results.
    """
    dataset.require_columns(results, ["embedding"])
    window_ms = round(window * 1000)
    tail: _Rows | None = None
    images = cut = 0
    with translated(results.output), tempfile.TemporaryFile() as file:
        width = _spread(connection, file)
        for block in _blocks(connection, file, width) if width else ():
            rows = block.after(tail) if tail else block
            first = len(rows.time) - len(block.time)
            pairs = _pairs(rows, first, threshold, window_ms)
            if pairs.num_rows:
                _insert(connection, "pairs", pairs)
            images += len(block.time)
            cut += _cut(rows, first, window_ms)
            tail = rows.last(REACH + 1)  # one more than is compared, to know who is cut
        connection.execute("""
            CREATE OR REPLACE TABLE near AS
            SELECT cosine, seconds, earlier.image_uri AS image_uri, later.image_uri AS near_uri
            FROM pairs JOIN places AS earlier ON earlier.place = pairs.earlier
                JOIN places AS later ON later.place = pairs.later
        """)
    return Near("near", images, cut)


@dataclass(frozen=True)
class _Rows:
    """Some rows in the order of camera, time and place.

    Attributes:
        place: int64 [N], in the order of the archive.
        camera: uint64 [N], a digest of what names it, or of the shard where there is no time.
        time: float64 [N], ms since 1970 by the camera's clock; 0 where there is none.
        timed: bool [N], whether there is one.
        unit: float32 [N, D], embeddings of length 1; NaN where it had no length.
    """

    place: npt.NDArray[np.int64]
    camera: npt.NDArray[np.uint64]
    time: npt.NDArray[np.float64]
    timed: npt.NDArray[np.bool_]
    unit: npt.NDArray[np.float32]

    def after(self, others: "_Rows") -> "_Rows":
        return _Rows(*(np.concatenate([getattr(others, f.name), getattr(self, f.name)]) for f in fields(self)))

    def last(self, count: int) -> "_Rows":
        return _Rows(*(getattr(self, f.name)[-count:] for f in fields(self)))


def _spread(connection: duckdb.DuckDBPyConnection, file: IO[bytes]) -> int:
    """Write embeddings of length 1 to the file, what else is needed to the table `places`; return their width."""
    connection.execute("""
        CREATE OR REPLACE TABLE pairs (cosine FLOAT, seconds DOUBLE, earlier BIGINT, later BIGINT);
        CREATE OR REPLACE TABLE places (image_uri VARCHAR, camera UBIGINT, time DOUBLE, timed BOOLEAN, place BIGINT)
    """)
    reader = connection.sql("""
        SELECT image_uri,
            CASE WHEN captured_at IS NULL THEN hash(shard)
                ELSE hash(camera_make, camera_model, camera_serial) END AS camera,
            coalesce(epoch_ms(captured_at), 0)::DOUBLE AS time, captured_at IS NOT NULL AS timed, embedding
        FROM images WHERE embedding IS NOT NULL
    """).to_arrow_reader(_READ)
    count = width = 0
    for batch in map(pa.Table.from_batches, ([batch] for batch in reader if len(batch))):
        vectors = batch.column("embedding").combine_chunks().flatten().to_numpy().reshape(len(batch), -1)
        with np.errstate(invalid="ignore"):
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        file.write(unit.astype(np.float32, copy=False).tobytes())
        place = pa.array(np.arange(count, count + len(batch)))
        _insert(connection, "places", batch.drop_columns("embedding").append_column("place", place))
        count, width = count + len(batch), unit.shape[1]
    file.flush()
    return width


def _blocks(connection: duckdb.DuckDBPyConnection, file: IO[bytes], width: int) -> Iterator[_Rows]:
    units = np.memmap(file, np.float32, mode="r").reshape(-1, width)
    order = "SELECT place, camera, time, timed FROM places ORDER BY camera, time, place"
    for batch in connection.sql(order).to_arrow_reader(_READ):  # whose batches are no smaller than DuckDB's own, 2,048
        for start in range(0, len(batch), _BLOCK):
            columns = batch.slice(start, _BLOCK).columns
            place, camera, time, timed = (column.to_numpy(zero_copy_only=False) for column in columns)
            yield _Rows(place, camera, time, timed, units[place])


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    cursor = connection.cursor()  # on the same one it would end the stream that is being read
    cursor.register("added", rows)
    cursor.execute(f"INSERT INTO {table} FROM added")
    cursor.close()


def _pairs(rows: _Rows, first: int, threshold: float, window_ms: int) -> pa.Table:
    """Return the pairs of each row from `first` on with those before it, in the columns of the table `pairs`."""
    places = np.arange(len(rows.time))
    back = places[first:, None] - places
    cosine = rows.unit[first:] @ rows.unit.T
    wanted = (
        (cosine >= threshold)
        & (back > 0)
        & (back <= REACH)
        & (rows.camera[first:, None] == rows.camera)
        & (rows.time[first:, None] - rows.time <= window_ms)
    )
    later, earlier = np.nonzero(wanted)
    seconds = (rows.time[first + later] - rows.time[earlier]) / 1000
    return pa.table(
        {
            "cosine": cosine[later, earlier],
            "seconds": pa.array(seconds, mask=~rows.timed[earlier]),
            "earlier": rows.place[earlier],
            "later": rows.place[first + later],
        }
    )


def _cut(rows: _Rows, first: int, window_ms: int) -> int:
    """Return how many rows from `first` on have more in their window than they are compared with."""
    places = np.arange(max(first, REACH + 1), len(rows.time))
    beyond = places - REACH - 1
    same_camera = rows.camera[places] == rows.camera[beyond]
    return int((same_camera & (rows.time[places] - rows.time[beyond] <= window_ms)).sum())
