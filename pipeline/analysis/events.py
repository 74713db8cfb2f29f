"""Events of each deployment, as Parquet: which images of a camera belong together, and what they show as a whole.

    OUTPUT/deployment=NAME/events.parquet    one row per event
    OUTPUT/deployment=NAME/images.parquet    one row per image in an event: image_uri, event_id, frame
    OUTPUT/quarantine.parquet                the images that cannot be in an event, and why

NAME is percent-escaped; the tables name the deployment in full.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pyarrow as pa

from pipeline import rows, storage
from pipeline.analysis import deployments, derived, results, sessions
from pipeline.analysis.derived import Origin
from pipeline.analysis.pooling import pool
from pipeline.analysis.results import Results
from pipeline.analysis.sessions import Gap
from pipeline.commit import ROWS_PER_GROUP
from pipeline.errors import OutputConflict, UsageError
from pipeline.fingerprint import Fingerprint
from pipeline.ledger import CLASSES_KEY

# Raise it when the meaning of a column changes.
EVENTS_VERSION = 1

# Frames that are sorted with all their probabilities: 180 MB with 700 classes. DuckDB would sort any number, with room.
_FRAMES_AT_ONCE = 2**16
# Of tables that have a few words in a row.
_BATCH = 2**16

_COUNT = pa.int32()
_MOMENT = pa.timestamp("ms")

IMAGE_SCHEMA = pa.schema([("image_uri", pa.string()), ("event_id", pa.string()), ("frame", _COUNT)])
QUARANTINE_SCHEMA = pa.schema(
    [
        ("image_uri", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("captured_at", _MOMENT),
        ("deployment", pa.string()),
        ("reason", pa.string()),
    ]
)
_EVENT_FIELDS = [
    pa.field("event_id", pa.string()),
    pa.field("deployment", pa.string()),
    pa.field("camera", pa.string()),
    pa.field("started_at", _MOMENT),
    pa.field("ended_at", _MOMENT),
    pa.field("frames", _COUNT),
    pa.field("ok", _COUNT),
    pa.field("salvaged", _COUNT),
    pa.field("failed", _COUNT),
]


@dataclass
class Account:
    """What a run did.

    Attributes:
        deployments, unchanged, removed: with events now; of these not written again; that have none any more.
        events, images: in events, over all deployments.
        quarantined: images in no event, by reason.
    """

    deployments: int = 0
    unchanged: int = 0
    removed: int = 0
    events: int = 0
    images: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)


def build(
    source: Results,
    output: str,
    gap: Gap,
    deployment_from: Sequence[str],
    replace: bool = False,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Account:
    """Write the events of all deployments, as far as they are not there already.

    Args:
        source: what `classify` wrote.
        output: a folder of its own.
        gap: where one event ends and the next begins.
        deployment_from: where deployments are looked up, as in `deployments.py`.
        replace: whether events that were made otherwise may be overwritten.
        progress: is given the deployments to do, and gives them back one by one.

    Raises:
        UsageError: OUTPUT and the results lie in each other, the model has no classes, or no image says its deployment.
        OutputConflict: OUTPUT holds events that were made otherwise, or files of others where ours would go.
        StorageError, TransientError: a store refuses, or does not answer.
    """
    output = storage.absolute(output)
    derived.refuse_nested(source.output, output)
    if not source.classes:
        raise UsageError(f"{source.output}: its model has no classes, so there is nothing to say of an event")
    with TemporaryDirectory(prefix="trapline-") as scratch, results.reading(source.output):
        return _Builder(source, output, gap, deployment_from, scratch).run(replace, progress)


class _Builder:
    def __init__(self, source: Results, output: str, gap: Gap, deployment_from: Sequence[str], scratch: str) -> None:
        self.source, self.output, self.gap = source, output, gap
        self.sources = [deployments.parse(text) for text in deployment_from]
        self.scratch = scratch
        self.files = {file.url: file for file in source.files}
        self.mark = _fingerprint(source, gap, deployment_from)
        self.connection = results.connect(source.output)
        self.connection.execute(f"set temp_directory = {deployments.literal(scratch)}")
        sessions.read(self.connection, list(self.files), self.sources)
        names = self.connection.sql("from located limit 0").columns
        self.column = "probabilities" if "probabilities" in names else "top_k"

    def run(self, replace: bool, progress: Callable[[Sequence[str]], Iterable[str]]) -> Account:
        known = derived.survey(self.output)
        if not replace:
            derived.refuse_others(known, self.mark, self.output)
        account, files = self._look()
        wanted = {self._url(name, table) for name in files for table in ("events", "images")}
        for url in sorted(wanted | {self._quarantine}):
            if url in known and known[url] is None:
                raise OutputConflict(f"{url}: not written by `trapline events`, and in the way; move it")
        ours = {url: table for url, table in known.items() if table}
        account.removed = len({table.part for table in ours.values() if table.part} - files.keys())
        for url, table in sorted(ours.items()):
            # Before anything is written: an image would be in two events.
            if table.fingerprint != self.mark or (table.part and url not in wanted):
                storage.remove(url)
        done = {name for name in files if self._is_done(name, files[name], ours)}
        account.unchanged = len(done)
        account.events = sum(ours[self._url(name, "events")].rows for name in done)
        for name in progress(sorted(files.keys() - done)):
            account.events += self._write(name, files[name])
        self._write_quarantine(ours)
        return account

    def _look(self) -> tuple[Account, dict[str, list[str]]]:
        """What there is to do, and the result files of each deployment."""
        found = self.connection.sql("""
            select reason, deployment, count(*), list(distinct filename) from located group by reason, deployment
        """).fetchall()
        account = Account()
        files = {}
        for reason, deployment, images, names in found:
            if reason:
                account.quarantined[reason] += images
            else:
                account.images += images
                files[deployment] = sorted(names)
        account.deployments = len(files)
        if not any(deployment for _, deployment, _, _ in found):
            self._refuse_lost()
        return account, files

    def _refuse_lost(self) -> None:
        asked = ", ".join(source.text for source in self.sources)
        uri = self.connection.sql("select image_uri from located order by key = '', image_uri limit 1").fetchall()
        example = f"such as {uri[0][0]} " if uri else ""
        raise UsageError(
            f"{self.source.output}: no image {example}says its deployment (asked: {asked}); "
            "say with --deployment-from where it stands: a pattern of the path, metadata:FIELD or serial"
        )

    def _is_done(self, name: str, files: Sequence[str], ours: dict[str, Origin]) -> bool:
        identity = self._identity(files)
        tables = [ours.get(self._url(name, table)) for table in ("events", "images")]
        return all(table is not None and table.made(self.mark, identity) for table in tables)

    def _write(self, name: str, files: list[str]) -> int:
        """The two tables of a deployment; gives the number of its events."""
        sessions.read(self.connection, files, self.sources)
        sessions.split(self.connection, name, self.gap)
        origin = Origin(self.mark, self._identity(files), name)
        images = self._stream(sessions.mapping(), _BATCH)
        derived.publish(self._url(name, "images"), IMAGE_SCHEMA, images, origin, self.scratch)
        full = self.column == "probabilities"
        classes = {CLASSES_KEY: json.dumps(self.source.classes)} if full else {}
        # Last: it is what a person looks for.
        return derived.publish(self._url(name, "events"), self.schema, self._events(), origin, self.scratch, classes)

    def _stream(self, sql: str, most: int) -> Iterator[pa.RecordBatch]:
        with results.reading(self.source.output):
            yield from self.connection.sql(sql).to_arrow_reader(most)

    def _frames(self) -> Iterator[pa.RecordBatch]:
        """The frames of the deployment in order, with what the model said of them."""
        ((count,),) = self.connection.sql("select count(*) from frames").fetchall()
        for begin in range(1, count + 1, _FRAMES_AT_ONCE):
            end = begin + _FRAMES_AT_ONCE
            some = f"select distinct filename from frames where position >= {begin} and position < {end}"
            files = [name for (name,) in self.connection.sql(some).fetchall()]
            sessions.read(self.connection, sorted(files), self.sources)
            yield from self._stream(sessions.predicted(self.column, begin, end), ROWS_PER_GROUP)

    def _events(self) -> Iterator[pa.RecordBatch]:
        for pooled in pool(self._frames(), self.source.classes):
            values = rows.ranked(pooled.probabilities, self.source.classes, self.top_k)
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

    def _write_quarantine(self, ours: dict[str, Origin]) -> None:
        everything = list(self.files)
        origin = Origin(self.mark, self._identity(everything))
        there = ours.get(self._quarantine)
        if there and there.made(origin.fingerprint, origin.identity):
            return
        sessions.read(self.connection, everything, self.sources)
        lost = self._stream(
            f"select {', '.join(QUARANTINE_SCHEMA.names)} from located where reason is not null "
            "order by filename, file_row_number",
            _BATCH,
        )
        derived.publish(self._quarantine, QUARANTINE_SCHEMA, lost, origin, self.scratch)

    @property
    def top_k(self) -> int:
        return min(int(self.source.fingerprint.facts.get("top_k", 5)), len(self.source.classes))

    @property
    def schema(self) -> pa.Schema:
        fields = [
            *_EVENT_FIELDS,
            pa.field("species", pa.string()),
            pa.field("probability", pa.float32()),
            pa.field("top_k", pa.list_(rows.SPECIES_PROBABILITY)),
            pa.field("best_frame", pa.string()),
        ]
        if self.column == "probabilities":
            fields.append(pa.field("probabilities", pa.list_(pa.float32(), len(self.source.classes))))
        return pa.schema(fields)

    @property
    def _quarantine(self) -> str:
        return storage.join(self.output, "quarantine.parquet")

    def _url(self, deployment: str, table: str) -> str:
        return storage.join(self.output, f"deployment={quote(deployment, safe='')}", f"{table}.parquet")

    def _identity(self, files: Iterable[str]) -> str:
        return derived.identity(self.files[url] for url in files)


def _fingerprint(source: Results, gap: Gap, deployment_from: Sequence[str]) -> Fingerprint:
    facts = {
        "events_version": EVENTS_VERSION,
        "gap": gap.seconds,
        "max_frames": gap.max_frames,
        "deployment_from": list(deployment_from),
        "pooling": "mean",
        # Another archive's events are not to be taken for ones that have gone from this.
        "results": source.output,
        "results_fingerprint": source.fingerprint.digest,
    }
    return Fingerprint.from_json(json.dumps(facts))
