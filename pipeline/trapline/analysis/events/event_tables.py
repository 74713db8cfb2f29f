"""The two tables of a deployment: its events, with what they show as a whole, and which image is in which of them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from trapline.analysis import sql, tables
from trapline.analysis.deployments import Source
from trapline.analysis.events import sessions
from trapline.analysis.events.pooling import pool
from trapline.analysis.events.sessions import Gap
from trapline.analysis.tables import Origin
from trapline.results import rows
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import CLASSES_KEY
from trapline.results.parquet import ROWS_PER_GROUP
from trapline.results.schema import SPECIES_PROBABILITY

# Frames that are sorted with all their probabilities: 180 MB with 700 classes. DuckDB would sort any number, with room.
_FRAMES_AT_ONCE = 2**16
# Rows at a time of tables that have a few words in each.
FEW_WORDS = 2**16

_COUNT = pa.int32()
MOMENT = pa.timestamp("ms")

IMAGE_SCHEMA = pa.schema([("image_uri", pa.string()), ("event_id", pa.string()), ("frame", _COUNT)])
_EVENT_FIELDS = [
    pa.field("event_id", pa.string()),
    pa.field("deployment", pa.string()),
    pa.field("camera", pa.string()),
    pa.field("started_at", MOMENT),
    pa.field("ended_at", MOMENT),
    pa.field("frames", _COUNT),
    pa.field("ok", _COUNT),
    pa.field("salvaged", _COUNT),
    pa.field("failed", _COUNT),
]


@dataclass(frozen=True)
class Deployment:
    """What is to be made.

    Attributes:
        name: of the deployment.
        files: the result files that have images of it.
        identity: of these, as in `derived`.
        events, images: where the tables go.
    """

    name: str
    files: tuple[str, ...]
    identity: str
    events: str
    images: str


@dataclass(frozen=True)
class EventTables:
    """Makes the tables of a deployment, and gives the number of its events.

    Attributes:
        results: where the result files lie.
        classes: names of the C classes.
        column: what the results say of an image: `probabilities` or `top_k`.
        top_k: how many species are listed.
        gap: where one event ends and the next begins.
        sources: where deployments are looked up.
        fingerprint: how the tables are made.
        threads: that DuckDB may have; None for all cores.
    """

    results: str
    classes: tuple[str, ...]
    column: str
    top_k: int
    gap: Gap
    sources: tuple[Source, ...]
    fingerprint: Fingerprint
    threads: int | None = None

    def __call__(self, deployment: Deployment) -> int:
        """Raises StorageError or TransientError where a store refuses, or does not answer."""
        connection = sql.connect()
        with TemporaryDirectory(prefix="trapline-") as scratch, connection, sql.translated(self.results):
            connection.execute(f"set temp_directory = {sql.literal(scratch)}")
            if self.threads:
                connection.execute(f"set threads = {self.threads}")
            sessions.read(connection, deployment.files, self.sources)
            sessions.split(connection, deployment.name, self.gap)
            origin = Origin(self.fingerprint, deployment.identity, deployment.name)
            images = sql.stream(connection, sessions.mapping(), FEW_WORDS, self.results)
            tables.publish(deployment.images, IMAGE_SCHEMA, images, origin, scratch)
            classes = {CLASSES_KEY: json.dumps(self.classes)} if self.column == "probabilities" else {}
            # Last: it is what a person looks for.
            return tables.publish(deployment.events, self.schema, self._events(connection), origin, scratch, classes)

    @property
    def schema(self) -> pa.Schema:
        """Of the table of events."""
        fields = [
            *_EVENT_FIELDS,
            pa.field("species", pa.string()),
            pa.field("probability", pa.float32()),
            pa.field("top_k", pa.list_(SPECIES_PROBABILITY)),
            pa.field("best_frame", pa.string()),
        ]
        if self.column == "probabilities":
            fields.append(pa.field("probabilities", pa.list_(pa.float32(), len(self.classes))))
        return pa.schema(fields)

    def _frames(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        """The frames in order, with what the model said of them."""
        ((count,),) = connection.sql("select count(*) from frames").fetchall()
        for begin in range(1, count + 1, _FRAMES_AT_ONCE):
            end = begin + _FRAMES_AT_ONCE
            some = f"select distinct filename from frames where position >= {begin} and position < {end}"
            files = [name for (name,) in connection.sql(some).fetchall()]
            sessions.read(connection, sorted(files), self.sources)
            predicted = sessions.predicted(self.column, begin, end)
            yield from sql.stream(connection, predicted, ROWS_PER_GROUP, self.results)

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
