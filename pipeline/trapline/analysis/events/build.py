"""Events of each deployment, as Parquet: which images of a camera belong together, and what they show as a whole.

    OUTPUT/deployment=NAME/events.parquet    one row per event
    OUTPUT/deployment=NAME/images.parquet    one row per image in an event: image_uri, event_id, frame
    OUTPUT/quarantine.parquet                the images that cannot be in an event, and why

NAME is percent-escaped; the tables name the deployment in full.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pyarrow as pa

from trapline.analysis import deployments, parallel, sql, tables
from trapline.analysis.dataset import Results
from trapline.analysis.events import sessions
from trapline.analysis.events.event_tables import FEW_WORDS, MOMENT, Deployment, EventTables
from trapline.analysis.events.sessions import Gap
from trapline.analysis.tables import Origin
from trapline.errors import OutputConflict, TransientError, UsageError
from trapline.ray_session import on_shared_cluster
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

# Raise it when the meaning of a column changes.
EVENTS_VERSION = 1

QUARANTINE_SCHEMA = pa.schema(
    [
        ("image_uri", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("captured_at", MOMENT),
        ("deployment", pa.string()),
        ("reason", pa.string()),
    ]
)


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
    progress: Callable[[Iterable[int], int], Iterable[int]] = lambda answers, total: answers,
) -> Account:
    """Write the events of all deployments, as far as they are not there already.

    Args:
        source: what `classify` wrote.
        output: a folder of its own.
        gap: where one event ends and the next begins.
        deployment_from: where deployments are looked up, as in `deployments.py`.
        replace: whether events that were made otherwise may be overwritten.
        progress: is given what comes of each deployment, and how many there are, and hands it on.

    Raises:
        UsageError: OUTPUT and the results lie in each other, the model has no classes, or no image says its deployment.
        OutputConflict: OUTPUT holds events that were made otherwise, or files of others where ours would go.
        StorageError, TransientError: a store refuses, or does not answer; or workers on a cluster have died.
    """
    output = store.absolute(output)
    tables.refuse_nested(source.output, output)
    if not source.classes:
        raise UsageError(f"{source.output}: its model has no classes, so there is nothing to say of an event")
    with TemporaryDirectory(prefix="trapline-") as scratch, sql.translated(source.output):
        return _Builder(source, output, gap, deployment_from, scratch).run(replace, progress)


class _Builder:
    def __init__(self, source: Results, output: str, gap: Gap, deployment_from: Sequence[str], scratch: str) -> None:
        self.source, self.output, self.gap = source, output, gap
        self.sources = [deployments.parse(text) for text in deployment_from]
        self.scratch = scratch
        self.files = {file.url: file for file in source.files}
        self.mark = _fingerprint(source, gap, deployment_from)
        self.connection = sql.connect()
        self.connection.execute(f"set temp_directory = {sql.literal(scratch)}")
        sessions.read(self.connection, list(self.files), self.sources)
        self.died: list[str] = []
        names = self.connection.sql("from located limit 0").columns
        self.column = "probabilities" if "probabilities" in names else "top_k"

    def run(self, replace: bool, progress: Callable[[Iterable[int], int], Iterable[int]]) -> Account:
        known = tables.survey(self.output)
        if not replace:
            tables.refuse_others(known, self.mark, self.output)
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
                store.remove(url)
        done = {name for name in files if self._is_done(name, files[name], ours)}
        account.unchanged = len(done)
        account.events = sum(ours[self._url(name, "events")].rows for name in done)
        todo = [self._task(name, files[name]) for name in sorted(files.keys() - done)]
        # Here DuckDB has all cores for one after the other.
        answers = parallel.each(self._tables(), todo, threads=1, lost=self._lost)
        account.events += sum(progress(answers, len(todo)))
        if self.died:
            raise TransientError(
                f"{len(self.died):,} deployments have no events yet, such as {self.died[0]}; run it again"
            )
        self._write_quarantine(ours)
        return account

    def _tables(self) -> EventTables:
        facts = self.source.fingerprint.facts
        return EventTables(
            results=self.source.output,
            classes=self.source.classes,
            column=self.column,
            top_k=min(int(facts.get("top_k", 5)), len(self.source.classes)),
            gap=self.gap,
            sources=tuple(self.sources),
            fingerprint=self.mark,
            threads=1 if on_shared_cluster() else None,
        )

    def _task(self, name: str, files: Sequence[str]) -> Deployment:
        urls = {table: self._url(name, table) for table in ("events", "images")}
        return Deployment(name, tuple(files), self._identity(files), urls["events"], urls["images"])

    def _lost(self, deployment: Deployment, why: str) -> int:
        self.died.append(f"{deployment.name} ({why})")
        return 0

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

    def _write_quarantine(self, ours: dict[str, Origin]) -> None:
        everything = list(self.files)
        origin = Origin(self.mark, self._identity(everything))
        there = ours.get(self._quarantine)
        if there and there.made(origin.fingerprint, origin.identity):
            return
        sessions.read(self.connection, everything, self.sources)
        query = f"""
            select {", ".join(QUARANTINE_SCHEMA.names)} from located where reason is not null
            order by filename, file_row_number"""
        lost = sql.stream(self.connection, query, FEW_WORDS, self.source.output)
        tables.publish(self._quarantine, QUARANTINE_SCHEMA, lost, origin, self.scratch)

    @property
    def _quarantine(self) -> str:
        return store.join(self.output, "quarantine.parquet")

    def _url(self, deployment: str, table: str) -> str:
        return store.join(self.output, f"deployment={quote(deployment, safe='')}", f"{table}.parquet")

    def _identity(self, files: Iterable[str]) -> str:
        return tables.identity(self.files[url] for url in files)


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
