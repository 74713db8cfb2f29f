"""Results and events as a Camtrap DP package, the standard in which camera-trap studies are exchanged (GBIF, TDWG).

Camtrap DP 1.0.2: https://camtrap-dp.tdwg.org; Bubnicki et al. 2024, doi:10.1002/rse2.374. The tables are views, in
`export.sql`. DuckDB joins, sorts and writes them; what does not fit into memory goes to disk, and so does each table
before it is published.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from trapline.analysis import dataset, event_dataset, tables
from trapline.analysis.camtrapdp import deployment_table, descriptor
from trapline.analysis.camtrapdp.descriptor import TABLES, Description
from trapline.analysis.dataset import Results
from trapline.analysis.deployments import literal
from trapline.analysis.event_dataset import EventFiles
from trapline.errors import OutputConflict, UsageError, in_one_line
from trapline.storage import store

DESCRIPTOR = "datapackage.json"
_QUARANTINE = "quarantine.csv.gz"
_TYPES = ("animal", "human", "vehicle", "blank")


@dataclass(frozen=True)
class Export:
    """How to describe the observations.

    Attributes:
        timezone: of the cameras' clocks, where the deployments table has no column for it.
        threshold: probability below which an observation is `unknown`.
        model_name: in `classifiedBy`, before the weights' hash; None: the network's.
        taxa: CSV that gives the classes (`class`) their `scientificName` and perhaps `observationType`, `taxonID`,
            `taxonRank`; None: the classes are scientific names themselves.
        parquet: whether to write the tables as Parquet, too.
    """

    timezone: str | None = None
    threshold: float = 0.5
    model_name: str | None = None
    taxa: str | None = None
    parquet: bool = False


@dataclass(frozen=True)
class Account:
    """Rows of each table, and the images that are in none of them by reason."""

    rows: dict[str, int]
    quarantined: dict[str, int] = field(default_factory=dict)


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
        source: what `classify` wrote.
        events: what `events` made of it.
        deployments: URL of the deployments table, see `deployment_table.py`.
        package: a folder of its own.
        description: what the data cannot tell.
        title: of the package.
        how: see there.
        replace: whether a package that is there may be overwritten.

    Raises:
        UsageError: the deployments table or the taxa are not as they should be, the events are not of these results as
            they are now, or no event is of a deployment in the table.
        OutputConflict: there is a package already.
        StorageError, TransientError: a store refuses, or does not answer.
    """
    package, events, deployments = (store.absolute(url) for url in (package, events, deployments))
    taxa = how.taxa and store.absolute(how.taxa)
    for other in (source.output, events):
        tables.refuse_nested(other, package)
    current = event_dataset.find(events, source)
    there = {entry.url for entry in store.list_files(package, missing_ok=True)}
    if store.join(package, DESCRIPTOR) in there and not replace:
        raise OutputConflict(f"{package}: holds a package; choose another folder, or overwrite it with --replace")
    with TemporaryDirectory(prefix="trapline-") as scratch, dataset.reading(source.output):
        connection = dataset.connect(source.output, events, deployments, taxa or events)
        connection.execute(f"set temp_directory = {literal(scratch)}; set TimeZone = 'UTC'")
        deployment_table.load(connection, deployments, how.timezone)
        _load_taxa(connection, taxa, source.classes)
        _define(connection, source, current, description, how)
        lost = _quarantined(connection, events, deployments)
        store.remove(store.join(package, DESCRIPTOR))
        rows = {table: _write(connection, table, package, scratch, how.parquet) for table in TABLES}
        _copy(connection, "from quarantine order by image_uri", store.join(package, _QUARANTINE), scratch)
        text = json.dumps(_descriptor(connection, description, title), indent=2, ensure_ascii=False)
        store.put(store.join(package, DESCRIPTOR), f"{text}\n".encode())
    return Account(rows, lost)


def _load_taxa(connection: duckdb.DuckDBPyConnection, url: str | None, classes: Sequence[str]) -> None:
    """Makes `taxa` a table: class, scientificName, observationType, taxonID, taxonRank."""
    connection.register("class_names", pa.table({"class": list(classes)}))
    columns = ("class", "scientificName", "observationType", "taxonID", "taxonRank")
    if url is None:
        plain = "class, class as scientificName, 'animal' as observationType, null as taxonID, null as taxonRank"
        connection.execute(f"create temp table taxa as select {plain} from class_names")
        return
    try:
        connection.execute(f"""create temp table named as
            from read_csv({literal(url)}, all_varchar = true, header = true, strict_mode = true)""")
    except (duckdb.Error, OSError) as error:
        raise UsageError(f"{url}: no table of taxa: {in_one_line(error)}") from error
    present = connection.sql("from named").columns
    if not {"class", "scientificName"} <= set(present):
        raise UsageError(f"{url}: lacks the columns class and scientificName")
    picked = ", ".join(f"nullif(trim({name}), '') as {name}" if name in present else f"null::varchar as {name}"
                       for name in columns)  # fmt: skip
    connection.execute(f"""
        create temp table taxa as select * replace (coalesce(observationType, 'animal') as observationType)
        from (select {picked} from named) semi join class_names using (class)""")
    lost = connection.sql("select class from class_names anti join taxa using (class) order by class").fetchall()
    twice = connection.sql("select class from taxa group by class having count(*) > 1 order by class").fetchall()
    wrong = connection.sql(f"""
        select class from taxa where observationType not in {_TYPES}
        or (observationType = 'animal' and scientificName is null) order by class""").fetchall()
    for rows, what in (
        (lost, "lacks the class"),
        (twice, "names twice the class"),
        (wrong, f"says no scientificName, or none of {', '.join(_TYPES)}, of the class"),
    ):
        if rows:
            more = f" (and {len(rows) - 1:,} more)" if len(rows) > 1 else ""
            raise UsageError(f"{url}: {what} {rows[0][0]}{more}")


def _define(
    connection: duckdb.DuckDBPyConnection,
    source: Results,
    current: EventFiles,
    description: Description,
    how: Export,
) -> None:
    """Makes the package's tables views; reads nothing yet."""
    modified = {entry.url: entry.modified for entry in store.list_files(source.output)}
    names = [file.url for file in source.files]
    moments = pa.array([modified.get(name) for name in names], pa.timestamp("s", "UTC"))
    connection.register("written", pa.table({"filename": names, "classified_at": moments}))
    methods = description.project.captureMethod
    facts = source.fingerprint.facts
    name = how.model_name or facts.get("architecture", {}).get("variant") or "Hiera"
    sql = (
        files("trapline.analysis.camtrapdp")
        .joinpath("export.sql")
        .read_text("utf-8")
        .format(
            images=f"read_parquet([{', '.join(map(literal, names))}], hive_partitioning = false, filename = true)",
            mapping=_parquet(current.images),
            events=_parquet(current.events),
            lost=_parquet(current.unassigned),
            # Of several methods no image says which it was.
            capture_method=literal(methods[0]) if len(set(methods)) == 1 else "null",
            model=literal(f"{name} (weights sha256:{facts.get('weights_sha256', 'unknown')})"),
            threshold=how.threshold,
        )
    )
    connection.execute(sql)


def _parquet(urls: Sequence[str]) -> str:
    return f"read_parquet([{', '.join(map(literal, urls))}], hive_partitioning = false)"


def _quarantined(connection: duckdb.DuckDBPyConnection, events: str, deployments: str) -> dict[str, int]:
    lost = dict(connection.sql("select reason, count(*) from quarantine group by reason order by 2 desc, 1").fetchall())
    if not connection.sql("select 1 from placed limit 1").fetchall():
        theirs = connection.sql("select deployment from quarantine where deployment is not null limit 1").fetchall()
        ours = connection.sql("select deploymentID from deployments limit 1").fetchall()
        raise UsageError(
            f"{deployments}: no deploymentID is a deployment of {events}; there they are called as "
            f"{theirs[0][0] if theirs else '(none)'}, here as {ours[0][0] if ours else '(none)'}"
        )
    return lost


def _write(connection: duckdb.DuckDBPyConnection, table: str, package: str, scratch: str, parquet: bool) -> int:
    fields = deployment_table.schema(table)["fields"]
    names = ", ".join(f'"{each["name"]}"' for each in fields)
    order = {
        "media": "deploymentID, timestamp, fileName, mediaID",
        "observations": "deploymentID, eventStart, observationID",
    }
    sql = f"select {names} from {table} order by {order.get(table, 'deploymentID')}"
    rows = _copy(connection, sql, store.join(package, f"{table}.csv.gz"), scratch)
    if parquet:
        typed = ", ".join(_typed(each) for each in fields)
        _copy(connection, f"select {typed} from ({sql})", store.join(package, f"{table}.parquet"), scratch)
    return rows


def _typed(field: dict[str, Any]) -> str:
    kinds = {"number": "double", "integer": "bigint", "boolean": "boolean", "datetime": "timestamptz"}
    return f'"{field["name"]}"::{kinds.get(field["type"], "varchar")} as "{field["name"]}"'


def _copy(connection: duckdb.DuckDBPyConnection, sql: str, url: str, scratch: str) -> int:
    """Writes a table to disk and then, in one piece, where it belongs; gives the number of rows."""
    path = str(Path(scratch, "table"))
    how = "format parquet, compression zstd" if url.endswith(".parquet") else "format csv, header, compression gzip"
    ((rows,),) = connection.sql(f"copy ({sql}) to {literal(path)} ({how})").fetchall()
    store.put_file(url, path)
    return int(rows)


def _descriptor(connection: duckdb.DuckDBPyConnection, description: Description, title: str) -> dict[str, Any]:
    places = connection.sql("""
        select latitude::double, longitude::double, left(deploymentStart, 10), left(deploymentEnd, 10)
        from deployments""").fetchall()
    found = connection.sql("""
        select scientificName, min(taxonID), min(taxonRank) from taxa
        where scientificName in (select scientificName from observations) group by scientificName order by 1""")
    names = ("scientificName", "taxonID", "taxonRank")
    taxa = [{name: value for name, value in zip(names, row, strict=True) if value} for row in found.fetchall()]
    return descriptor.descriptor(description, title, places, taxa)
