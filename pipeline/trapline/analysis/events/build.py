"""Write the events of all deployments as Parquet: which images of a camera belong together, and what they show.

OUTPUT gets three tables, each a folder: `events`, `images` and `unassigned`; see `event_dataset.py`.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from trapline.analysis import dataset, deployment_periods, deployments, event_dataset, parallel, tables, time_zones
from trapline.analysis.dataset import Results
from trapline.analysis.events import corrections, sessions
from trapline.analysis.events.event_tables import IMAGE_SCHEMA, MOMENT, NARROW_ROWS, Deployment, EventTables
from trapline.analysis.events.sessions import Gap, Placing
from trapline.analysis.sql import connect, stream, translated
from trapline.analysis.tables import Origin
from trapline.errors import OutputConflict, TransientError, UsageError
from trapline.ray_session import on_shared_cluster
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

# Raise it when the meaning of a column changes.
EVENTS_VERSION = 2

_UNASSIGNED_SCHEMA = pa.schema(
    [
        ("image_uri", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("captured_at", MOMENT),
        ("deployment", pa.string()),
        ("camera", pa.string()),
        ("reason", pa.string()),
    ]
)
# Clocks in the easternmost zone are 14 h ahead of UTC.
_AHEAD = timedelta(days=1)
# Categories of a detector, by name and number, that leave no crops but of animals.
_ANIMALS = {"animal", "1"}


@dataclass
class Account:
    """What a run did.

    Attributes:
        deployments: that have events now.
        unchanged: of these, how many were already written.
        removed: deployments that had events and have none any more.
        events, images: in all deployments together.
        unassigned: images in no event, by reason; several reasons of one image are joined by ", ".
        unused: lines of the corrections that no image needs.
    """

    deployments: int = 0
    unchanged: int = 0
    removed: int = 0
    events: int = 0
    images: int = 0
    unassigned: Counter[str] = field(default_factory=Counter)
    unused: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Options:
    """How events are made.

    Attributes:
        gap: where one event ends and the next begins.
        deployment_from: where deployments are looked up, as in `deployments.py`.
        corrections: URL of a CSV with corrections of clocks, as in `corrections.py`; None for none.
        deployments: URL of a CSV with the periods of deployments, as in `deployment_periods.py`; None for none.
        timezone: of the cameras' clocks: times in that CSV and of clips that say their offset from UTC are put in it.
    """

    gap: Gap
    deployment_from: Sequence[str]
    corrections: str | None = None
    deployments: str | None = None
    timezone: str | None = None


def build(
    source: Results,
    output: str,
    options: Options,
    replace: bool = False,
    progress: Callable[[Iterable[int], int], Iterable[int]] = lambda answers, total: answers,
) -> Account:
    """Write the events of all deployments that are missing or out of date.

    Args:
        source: the results of `classify` or `rescore`.
        output: a folder for the events alone.
        options: how events are made.
        replace: overwrite events that were made with other options.
        progress: wraps the iterator over finished deployments; its second argument is their number.

    Raises:
        UsageError: one of OUTPUT and the results lies in the other, the model has no classes, no image names its
            deployment, or the corrections are wrong.
        OutputConflict: OUTPUT holds events that were made with other options, or foreign files under names that events
            would take.
        StorageError, TransientError: a store refuses, or does not answer; or workers on a cluster have died.
    """
    output = store.absolute(output)
    tables.refuse_nested(source.output, output)
    if not source.classes:
        raise UsageError(f"{source.output}: its model has no classes, so events would have no species")
    with TemporaryDirectory(prefix="trapline-") as scratch, translated(source.output):
        return _Builder(source, output, options, scratch).run(replace, progress)


class _Builder:
    def __init__(self, source: Results, output: str, options: Options, scratch: str) -> None:
        self.source, self.output, self.options, self.scratch = source, output, options, scratch
        self.files = {file.url: file for file in source.files}
        latest = datetime.now(UTC).replace(tzinfo=None) + _AHEAD
        sources = tuple(map(deployments.parse, options.deployment_from))
        self.placing = Placing(sources, latest, timezone=options.timezone)
        clocks, periods = (url and store.absolute(url) for url in (options.corrections, options.deployments))
        self.connection = connect(scratch)
        _refuse_unknown_zone(self.connection, options.timezone)
        sessions.read(self.connection, list(self.files), self.placing)
        self.unused: list[int] = []
        if clocks:
            self.placing = replace(self.placing, corrections=corrections.read(clocks, self.connection))
            self.unused = corrections.unused(self.connection, self.placing.corrections)
        if periods:
            found = deployment_periods.read(periods, options.timezone, self.connection)
            self.placing = replace(self.placing, periods=found)
        if clocks or periods:
            sessions.read(self.connection, list(self.files), self.placing)
        self.fingerprint = _fingerprint(source, options, self.placing)
        self.unfinished: list[str] = []
        names = self.connection.sql("from located limit 0").columns
        self.column = "probabilities" if "probabilities" in names else "top_k"

    def run(self, replace: bool, progress: Callable[[Iterable[int], int], Iterable[int]]) -> Account:
        known = tables.survey(self.output)
        _refuse_foreign(known, self.output)
        if not replace:
            tables.refuse_others(known, self.fingerprint, self.output)
        account, files, images = self._look()
        unassigned = event_dataset.unassigned_url(self.output)
        periods = event_dataset.deployments_url(self.output)
        # Without any event the tables have no rows, but they are there.
        wanted = {url for name in files or [""] for url in self._urls(name)}
        wanted |= {periods} if self.placing.periods else set()
        for url in sorted(wanted | {unassigned}):
            if url in known and known[url] is None:
                raise OutputConflict(f"{url}: not written by `trapline events`, and in the way; move it")
        existing = {url: table for url, table in known.items() if table}
        account.removed = len({table.part for table in existing.values() if table.part} - files.keys())
        # Before anything is written: an image would be in two events. And first of all the table that readers judge the
        # others by, or they would take what is left for all events.
        for url, table in sorted(existing.items(), key=lambda each: (each[0] != unassigned, each[0])):
            outdated = url == unassigned and table.rows != account.unassigned.total()
            if table.fingerprint != self.fingerprint or url not in wanted | {unassigned} or outdated:
                store.remove(url)
        done = {name for name in files if self._is_done(name, files[name], images[name], existing)}
        account.unchanged = len(done)
        account.events = sum(existing[self._urls(name)[0]].rows for name in done)
        todo = [self._task(name, files[name]) for name in sorted(files.keys() - done)]
        # On this machine DuckDB uses all cores for one deployment at a time.
        answers = parallel.each(self._tables(), todo, threads=1, lost=self._lost)
        account.events += sum(progress(answers, len(todo)))
        if self.unfinished:
            raise TransientError(
                f"{len(self.unfinished):,} deployments have no events yet, such as {self.unfinished[0]}; run it again"
            )
        if not files:
            self._write_empty()
        there = periods in existing and existing[periods].fingerprint == self.fingerprint
        self._write_deployments(periods, there)
        self._write_unassigned(unassigned, existing.get(unassigned), account.unassigned.total())
        return account

    def _tables(self) -> EventTables:
        facts = self.source.fingerprint.facts
        return EventTables(
            results=self.source.output,
            classes=self.source.classes,
            column=self.column,
            top_k=min(int(facts.get("top_k", 5)), len(self.source.classes)),
            gap=self.options.gap,
            placing=self.placing,
            fingerprint=self.fingerprint,
            threads=1 if on_shared_cluster() else None,
        )

    def _task(self, name: str, files: Sequence[str]) -> Deployment:
        return Deployment(name, tuple(files), self._identity(files), *self._urls(name))

    def _lost(self, deployment: Deployment, why: str) -> int:
        self.unfinished.append(f"{deployment.name} ({why})")
        return 0

    def _look(self) -> tuple[Account, dict[str, list[str]], Counter[str]]:
        """Return the counts of images, and the result files and the number of images of each deployment."""
        by_file = self.connection.sql("""
            select filename, reason, deployment, count(*)::bigint as images from located group by all""").fetchall()
        dataset.require_all(self.source, _sum_by_file(by_file))
        found: dict[tuple[str | None, str | None], list[tuple[str, int]]] = defaultdict(list)
        for file, reason, deployment, images in by_file:
            found[reason, deployment].append((file, images))
        account = Account(unused=self.unused)
        files = {}
        of_deployment: Counter[str] = Counter()
        for (reason, deployment), counted in found.items():
            images = sum(images for _, images in counted)
            if reason or deployment is None:
                account.unassigned[str(reason)] += images
            else:
                account.images += images
                of_deployment[deployment] = images
                files[deployment] = sorted(file for file, _ in counted)
        account.deployments = len(files)
        if not any(deployment for _, deployment in found):
            self._refuse_without_deployments()
        return account, files, of_deployment

    def _refuse_without_deployments(self) -> None:
        asked = ", ".join(source.text for source in self.placing.sources)
        first = "select image_uri, shard from located order by key = '', image_uri limit 1"
        found = self.connection.sql(first).fetchall()
        example = f"such as {found[0][0]} " if found else ""
        pattern = deployments.suggest(found[0][1]) if found else None
        raise UsageError(
            f"{self.source.output}: no image {example}names its deployment (looked up in: {asked}); say with "
            f"--deployment-from where it stands: a pattern of the path{f' such as {pattern!r}' if pattern else ''}, "
            "metadata:FIELD of the sidecar, or serial (of the camera, in EXIF)"
        )

    def _is_done(self, name: str, files: Sequence[str], count: int, existing: dict[str, Origin]) -> bool:
        identity = self._identity(files)
        events, images = (existing.get(url) for url in self._urls(name))
        made = all(table is not None and table.made(self.fingerprint, identity) for table in (events, images))
        # A time in the future has become one that can be, though no result has changed.
        return made and images is not None and images.rows == count

    def _write_empty(self) -> None:
        origin = Origin(self.fingerprint, "")
        for url, schema in zip(self._urls(""), (self._tables().schema, IMAGE_SCHEMA), strict=True):
            tables.publish(url, schema, (), origin, self.scratch)

    def _write_deployments(self, url: str, there: bool) -> None:
        if self.placing.periods and not there:
            rows = self.placing.periods.deployments
            origin = Origin(self.fingerprint, "")
            tables.publish(url, deployment_periods.SCHEMA, rows.to_batches(), origin, self.scratch)

    def _write_unassigned(self, url: str, existing: Origin | None, count: int) -> None:
        everything = list(self.files)
        origin = Origin(self.fingerprint, self._identity(everything))
        if existing and existing.made(origin.fingerprint, origin.identity) and existing.rows == count:
            return
        sessions.read(self.connection, everything, self.placing)
        sql = f"""
            select {", ".join(_UNASSIGNED_SCHEMA.names)} from located where reason is not null
            order by filename, file_row_number"""
        images = stream(self.connection, sql, NARROW_ROWS, self.source.output)
        tables.publish(url, _UNASSIGNED_SCHEMA, images, origin, self.scratch)

    def _urls(self, deployment: str) -> tuple[str, str]:
        """Return where the events and the images of a deployment belong."""
        events, images = (
            event_dataset.table_url(self.output, table, deployment)
            for table in (event_dataset.EVENTS, event_dataset.IMAGES)
        )
        return events, images

    def _identity(self, files: Iterable[str]) -> str:
        return tables.identity(self.files[url] for url in files)


def _refuse_unknown_zone(connection: duckdb.DuckDBPyConnection, timezone: str | None) -> None:
    try:
        time_zones.require_known(connection, timezone or "UTC")
    except ValueError as error:
        raise UsageError(f"--timezone {error}") from error


def _refuse_foreign(known: dict[str, Origin | None], output: str) -> None:
    """Raise OutputConflict if a folder has tables of another job, which `--replace` would remove."""
    foreign = [url for url, table in known.items() if table and "events_version" not in table.fingerprint.facts]
    if foreign:
        raise OutputConflict(
            f"{foreign[0]}: a table that another job wrote, such as `trapline tables`; choose another OUTPUT"
        )


def _sum_by_file(rows: Iterable[tuple[str, Any, Any, int]]) -> Counter[str]:
    images: Counter[str] = Counter()
    for file, _, _, count in rows:
        images[file] += count
    return images


def _fingerprint(source: Results, options: Options, placing: Placing) -> Fingerprint:
    facts = {
        "events_version": EVENTS_VERSION,
        "gap": options.gap.seconds,
        "max_frames": options.gap.max_frames,
        "deployment_from": list(options.deployment_from),
        "pooling": "mean",
        # Events of another archive must not be taken for events of images that have disappeared from this one.
        "results": source.output,
        "results_fingerprint": source.fingerprint.digest,
    }
    if not {*source.computed.get("detection_categories", ())} <= _ANIMALS:
        facts["crops"] = "of animals"
    if placing.timezone:
        facts["timezone"] = placing.timezone
    if placing.corrections:
        folders = [each.folder for each in placing.corrections]
        said = repr(placing.corrections) + (repr(folders) if any(folders) else "")
        facts["corrections_sha256"] = hashlib.sha256(said.encode()).hexdigest()
    if placing.periods:
        table = repr(placing.periods.rows) + repr(placing.periods.deployments.to_pylist())
        facts["deployments_sha256"] = hashlib.sha256(table.encode()).hexdigest()
    return Fingerprint.from_json(json.dumps(facts))
