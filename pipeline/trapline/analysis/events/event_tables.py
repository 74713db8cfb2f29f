"""Write the two tables of a deployment: its events with their pooled predictions, and which image is in which event."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from trapline.analysis import tables
from trapline.analysis.events import sessions
from trapline.analysis.events.pooling import pool
from trapline.analysis.events.sessions import Gap, Placing
from trapline.analysis.sql import connect, literal, stream, translated
from trapline.analysis.tables import Origin
from trapline.results import rows
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import CLASSES_KEY
from trapline.results.parquet import ROWS_PER_GROUP
from trapline.results.schema import SPECIES_PROBABILITY, VECTOR

# Frames that are sorted with all their probabilities: 180 MB with 700 classes. DuckDB would sort any number on disk.
_FRAMES_AT_ONCE = 2**16
# Rows in a batch of tables whose rows are narrow.
NARROW_ROWS = 2**16

_COUNT = pa.int32()
MOMENT = pa.timestamp("ms")

IMAGE_SCHEMA = pa.schema(
    [
        ("image_uri", pa.string()),
        ("deployment", pa.string()),
        ("camera", pa.string()),
        ("captured_at", MOMENT),
        ("event_id", pa.string()),
        ("frame", _COUNT),
    ]
)
_EVENT_FIELDS = [
    pa.field("event_id", pa.string()),
    pa.field("deployment", pa.string()),
    pa.field("camera", pa.string()),
    pa.field("started_at", MOMENT),
    pa.field("ended_at", MOMENT),
    pa.field("clock_corrected", pa.bool_()),
    pa.field("frames", _COUNT),
    pa.field("ok", _COUNT),
    pa.field("salvaged", _COUNT),
    pa.field("failed", _COUNT),
]


@dataclass(frozen=True)
class Deployment:
    """A deployment whose tables are to be written.

    Attributes:
        name: of the deployment.
        files: the result files that have images of it.
        identity: of these files, as in `tables.identity`.
        events, images: URLs of its two tables.
    """

    name: str
    files: tuple[str, ...]
    identity: str
    events: str
    images: str


@dataclass(frozen=True)
class EventTables:
    """Write the tables of a deployment.

    Attributes:
        results: folder of the result files.
        classes: names of the C classes.
        column: which prediction the results hold of an image: `probabilities` or `top_k`.
        top_k: how many species are listed.
        gap: where one event ends and the next begins.
        placing: how images are given their deployment and time.
        fingerprint: how the tables are made.
        threads: limit of DuckDB's threads; None for all cores.
    """

    results: str
    classes: tuple[str, ...]
    column: str
    top_k: int
    gap: Gap
    placing: Placing
    fingerprint: Fingerprint
    threads: int | None = None

    def __call__(self, deployment: Deployment) -> int:
        """Write both tables; return the number of events.

        Raises:
            StorageError, TransientError: a store refuses, or does not answer.
        """
        connection = connect()
        with TemporaryDirectory(prefix="trapline-") as scratch, connection, translated(self.results):
            connection.execute(f"set temp_directory = {literal(scratch)}")
            if self.threads:
                connection.execute(f"set threads = {self.threads}")
            sessions.read(connection, deployment.files, self.placing)
            sessions.split(connection, deployment.name, self.gap)
            origin = Origin(self.fingerprint, deployment.identity, deployment.name)
            images = stream(connection, sessions.mapping(), NARROW_ROWS, self.results)
            tables.publish(deployment.images, IMAGE_SCHEMA, images, origin, scratch)
            classes = {CLASSES_KEY: json.dumps(self.classes)} if self.column == "probabilities" else {}
            # Written last: a reader that finds it finds the other table as well.
            return tables.publish(deployment.events, self.schema, self._events(connection), origin, scratch, classes)

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of the table of events."""
        fields = [
            *_EVENT_FIELDS,
            pa.field("species", pa.string()),
            pa.field("probability", pa.float32()),
            pa.field("top_k", pa.list_(SPECIES_PROBABILITY)),
            pa.field("best_frame", pa.string()),
        ]
        if self.column == "probabilities":
            fields.append(pa.field("probabilities", VECTOR))
        return pa.schema(fields)

    def _frames(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        """Yield the frames in order, with their predictions."""
        ((count,),) = connection.sql("select count(*) from frames").fetchall()
        for begin in range(1, count + 1, _FRAMES_AT_ONCE):
            end = begin + _FRAMES_AT_ONCE
            some = f"select distinct filename from frames where position >= {begin} and position < {end}"
            files = [name for (name,) in connection.sql(some).fetchall()]
            sessions.read(connection, sorted(files), self.placing)
            crops = "crop" in connection.sql("from stored limit 0").columns
            predicted = sessions.predicted(self.column, begin, end, crops)
            yield from stream(connection, predicted, ROWS_PER_GROUP, self.results)

    def _events(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        for pooled in pool(self._frames(connection), self.classes):
            values = rows.ranked(pooled.probabilities, self.classes, self.top_k)
            values["best_frame"] = pa.array(pooled.best_frame, pa.string())
            if self.column == "probabilities":
                values["probabilities"] = rows.vectors(pooled.probabilities)
            place = pa.array(
                [None if frame is None else number for number, frame in enumerate(pooled.best_frame)], pa.int64()
            )
            columns = {name: pooled.first.column(name) for name in pooled.first.schema.names}
            columns |= {name: column.take(place) for name, column in values.items()}
            yield pa.RecordBatch.from_arrays(
                [columns[field.name].cast(field.type) for field in self.schema], schema=self.schema
            )
