"""Write results and events as a Camtrap DP package, the standard for exchanging camera-trap studies.

Camtrap DP 1.0.2: https://camtrap-dp.tdwg.org; Bubnicki et al. 2024, doi:10.1002/rse2.374. The tables are views, in
`export.sql`. DuckDB joins and sorts each of them and writes it to a local file; these are checked against the
standard's rules before anything of a package is written or removed.
"""

import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from trapline.analysis import dataset, deployment_periods, event_dataset, tables
from trapline.analysis.camtrapdp import deployment_table, descriptor, placement, taxa, validation
from trapline.analysis.camtrapdp.descriptor import TABLES, Description
from trapline.analysis.dataset import Results
from trapline.analysis.event_dataset import EventFiles
from trapline.analysis.sql import connect, literal, read_parquet, translated
from trapline.errors import OutputConflict, UsageError
from trapline.results import layout
from trapline.storage import store

DESCRIPTOR = "datapackage.json"
_QUARANTINE = "quarantine"
_ORDER = {
    "deployments": "deploymentID",
    "media": "deploymentID, timestamp, fileName, mediaID",
    "observations": "deploymentID, eventStart, observationID",
    _QUARANTINE: "image_uri",
}
_COLUMNS = ("image_uri", "shard", "key", "status", "error", "format", "identity", "species", "probability")
_CROP_COLUMNS = "crop, box, detection_confidence, detection_category"
_NO_CROPS = """null::smallint as crop, null::float[] as box, null::float as detection_confidence,
    null::varchar as detection_category"""


@dataclass(frozen=True)
class Export:
    """How to describe the observations.

    Attributes:
        timezone: of the cameras' clocks, where the deployments table has no column for it.
        threshold: probability below which an observation is `unknown`.
        model_name: in `classifiedBy`, before the hash of the weights; None: the name of the network.
        taxa: URL of a CSV that names the classes, see `taxa.py`; None: the classes are scientific names.
        media_url: where the images are published; None: they are not, and each is named by where it was read.
        parquet: write the tables as Parquet as well.
    """

    timezone: str | None = None
    threshold: float = 0.5
    model_name: str | None = None
    taxa: str | None = None
    media_url: str | None = None
    parquet: bool = False


@dataclass(frozen=True)
class Account:
    """What was written.

    Attributes:
        rows: of each table.
        quarantined: images that are in no table, by reason.
        warnings: about clocks, in a sentence each.
    """

    rows: dict[str, int]
    quarantined: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def export(
    source: Results,
    events: str,
    deployments: str,
    package: str,
    description: Description,
    title: str,
    how: Export,
    replace: bool = False,
) -> Account:
    """Write the package; `datapackage.json`, without which it is none, comes last.

    Args:
        source: the results of `classify` or `rescore`.
        events: the events of these results.
        deployments: URL of the deployments table, see `deployment_table.py`.
        package: a folder for the package alone.
        description: what the data does not contain.
        title: of the package.
        how: to describe the observations.
        replace: overwrite a package that is there.

    Raises:
        UsageError: the deployments table or the taxa are wrong, the events are not of these results as they are now,
            no event lies in a deployment of the table, or the package would break a rule of the standard.
        OutputConflict: there is a package already.
        StorageError, TransientError: a store refuses, or does not answer.
    """
    package, events, deployments = (store.absolute(url) for url in (package, events, deployments))
    for other in (source.output, events):
        tables.refuse_nested(other, package)
    current = event_dataset.find(events, source)
    dataset.require_columns(source, _COLUMNS)
    existing = {entry.url for entry in layout.list_files(package, missing_ok=True)}
    if store.join(package, DESCRIPTOR) in existing and not replace:
        raise OutputConflict(f"{package}: holds a package; choose another folder, or overwrite it with --replace")
    with TemporaryDirectory(prefix="trapline-") as scratch, translated(source.output):
        connection = connect()
        connection.execute(f"set temp_directory = {literal(scratch)}")
        deployment_table.load(connection, deployments, how.timezone)
        taxa.load(connection, how.taxa and store.absolute(how.taxa), source.classes)
        _define_sources(connection, source, current)
        warnings = placement.place(connection, deployments)
        _refuse_unplaced(connection, events, deployments)
        _define_package(connection, source, current, description, how)
        written = {table: _compute(connection, table, scratch) for table in (*TABLES, _QUARANTINE)}
        for table in TABLES:
            validation.check(connection, table, written, f"{package}/{table}.csv.gz")
        content = _describe(connection, description, title, written)
        rows = _publish(connection, content, written, package, scratch, how.parquet, existing)
        quarantined = connection.sql(f"""
            select reason, count(*) from {written[_QUARANTINE]} group by reason order by 2 desc, 1""").fetchall()
    return Account(rows, dict(quarantined), warnings)


def _define_sources(connection: duckdb.DuckDBPyConnection, source: Results, current: EventFiles) -> None:
    """Create the views `images`, `crops`, `events` and `mapping`; nothing is read yet."""
    modified = {entry.url: entry.modified for entry in layout.list_files(source.output)}
    names = [file.url for file in source.files]
    moments = pa.array([modified.get(name) for name in names], pa.timestamp("s", "UTC"))
    paths = [dataset.shard_path(name, source.output) for name in names]
    connection.register("written", pa.table({"filename": names, "classified_at": moments, "shard_path": paths}))
    crops = _CROP_COLUMNS if source.has_crops else _NO_CROPS
    present = dataset.columns(source)
    media_type, seconds = (name if name in present else "null" for name in ("media_type", "duration_seconds"))
    connection.execute(f"""
        create temp view stored as
        select {", ".join(_COLUMNS)}, {crops}, classified_at, shard_path, {media_type}::varchar as media_type,
            to_milliseconds(round(coalesce({seconds}, 0) * 1000)::bigint) as lasts
        from {dataset.without_frames(connection, names)}
        join written using (filename);
        create temp view images as from stored where crop is null;
        create temp view crops as from stored where crop is not null;
        create temp view events as from {read_parquet(current.events)};
        create temp view mapping as select image_uri, event_id, captured_at from {read_parquet(current.images)}""")


def _define_package(
    connection: duckdb.DuckDBPyConnection, source: Results, current: EventFiles, description: Description, how: Export
) -> None:
    """Create the package's tables as views; nothing is read yet."""
    methods = set(description.capture_methods)
    text = files("trapline.analysis.camtrapdp").joinpath("export.sql").read_text("utf-8")
    sql = text.format(
        unassigned=read_parquet(current.unassigned),
        # Where there are several methods, images do not say which of them it was.
        capture_method=literal(*methods) if len(methods) == 1 else "null",
        model=literal(source.classifier(how.model_name)),
        detector=literal(f"detector (detections sha256:{source.computed.get('detections_sha256')})"),
        threshold=how.threshold,
        file_path=_file_path(how.media_url),
        file_public="true" if how.media_url else "false",
    )
    connection.execute(sql)


def _file_path(media_url: str | None) -> str:
    """Return SQL for where an image can be found."""
    if media_url:
        path = "ltrim(concat_ws('/', nullif(shard_path, ''), key), '/')"
        return f"allowed({literal(media_url.rstrip('/') + '/')} || replace(url_encode({path}), '%2F', '/'))"
    # An image in an archive has no path of its own; a loose one, whose identity is kept, has.
    path = "case when identity is not null then rtrim(shard, '/') || '/' || key else image_uri end"
    return f"allowed(case when starts_with(shard, '/') then 'file://' else '' end || {path})"


def _refuse_unplaced(connection: duckdb.DuckDBPyConnection, events: str, deployments: str) -> None:
    if connection.sql("select 1 from timed limit 1").fetchall():
        return
    outside = connection.sql(f"""
        select deployment, strftime(started_at, '%Y-%m-%d %H:%M') from assigned join events using (event_id, deployment)
        where reason = '{deployment_periods.OUTSIDE}' order by all limit 1""").fetchall()
    for deployment, time in outside:
        raise UsageError(
            f"{deployments}: no event lies between deploymentStart and deploymentEnd of its deployment, such as one of "
            f"{deployment} at {time}; correct the table, or the clocks with `trapline events --corrections`"
        )
    theirs = connection.sql("select min(deployment) from events").fetchall()[0][0]
    ours = connection.sql("select min(deploymentID) from deployments").fetchall()[0][0]
    raise UsageError(
        f"{deployments}: no deploymentID is a deployment of {events}; there they have names such as {theirs}, here "
        f"such as {ours}"
    )


def _compute(connection: duckdb.DuckDBPyConnection, table: str, scratch: str) -> str:
    """Write a table to a file of this machine; return SQL that reads it."""
    columns = "*"
    if table in TABLES:
        columns = ", ".join(f'"{each["name"]}"' for each in validation.schema(table)["fields"])
    path = literal(str(Path(scratch, f"{table}.parquet")))
    connection.execute(f"""
        copy (select {columns} from {table} order by {_ORDER[table]}) to {path} (format parquet, compression zstd)""")
    return f"read_parquet({path}, hive_partitioning = false)"


def _describe(
    connection: duckdb.DuckDBPyConnection, description: Description, title: str, written: dict[str, str]
) -> dict[str, Any]:
    places = connection.sql(f"""
        select latitude::double, longitude::double, left(deploymentStart, 10), left(deploymentEnd, 10)
        from {written["deployments"]}""").fetchall()
    found = connection.sql(f"""
        select scientificName, min(taxonID), min(taxonRank)
        from (select distinct scientificName from {written["observations"]}) left join taxa using (scientificName)
        where scientificName is not null group by scientificName order by 1""")
    names = ("scientificName", "taxonID", "taxonRank")
    observed = [{name: value for name, value in zip(names, row, strict=True) if value} for row in found.fetchall()]
    return descriptor.compose(description, title, places, observed)


def _publish(
    connection: duckdb.DuckDBPyConnection,
    content: dict[str, Any],
    written: dict[str, str],
    package: str,
    scratch: str,
    parquet: bool,
    existing: set[str],
) -> dict[str, int]:
    """Write the files where they belong; return the number of rows of each table."""
    store.remove(store.join(package, DESCRIPTOR))
    rows = {}
    for table, relation in written.items():
        count = _copy(connection, f"from {relation}", store.join(package, f"{table}.csv.gz"), scratch)
        if table not in TABLES:
            continue
        rows[table] = count
        url = store.join(package, f"{table}.parquet")
        if parquet:
            typed = ", ".join(map(_typed, validation.schema(table)["fields"]))
            _copy(connection, f"select {typed} from {relation}", url, scratch)
        elif url in existing:
            store.remove(url)  # of the package that was replaced
    text = json.dumps(content, indent=2, ensure_ascii=False)
    store.put(store.join(package, DESCRIPTOR), f"{text}\n".encode())
    return rows


def _typed(field: dict[str, Any]) -> str:
    return f'"{field["name"]}"::{validation.SQL_TYPES.get(field["type"], "varchar")} as "{field["name"]}"'


def _copy(connection: duckdb.DuckDBPyConnection, sql: str, url: str, scratch: str) -> int:
    """Write a table to disk and then, in one piece, where it belongs; return the number of rows."""
    path = str(Path(scratch, "published"))
    how = "format parquet, compression zstd" if url.endswith(".parquet") else "format csv, header, compression gzip"
    ((rows,),) = connection.sql(f"copy ({sql}) to {literal(path)} ({how})").fetchall()
    store.put_file(url, path)
    return int(rows)
