"""Write one file of the flat tables: kept rows from the file as it was, changed ones from their results."""

from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from trapline.analysis import dataset, sql, tables
from trapline.analysis.dataset import Results
from trapline.analysis.deployments import Source
from trapline.analysis.flat_tables import contents
from trapline.analysis.flat_tables.contents import Part
from trapline.analysis.flat_tables.flat_columns import FlatColumn, order, select
from trapline.analysis.flat_tables.packing import FilePlan
from trapline.analysis.tables import Origin
from trapline.errors import OutputConflict
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

# A question about one place reads one group of some 10 MB, and the statistics of the groups say which.
ROWS_PER_GROUP = 100_000
_BATCH = 10_000
_FILES = pa.schema([(name, pa.string()) for name in ("url", "result", "folder")])


@dataclass(frozen=True)
class Writer:
    """Write files of the flat tables.

    Attributes:
        source: the results.
        columns: of the tables.
        sources: where deployments are looked up; may be none.
        fingerprint: how the tables are made.
        threads: limit of DuckDB's threads; None for all cores.
    """

    source: Results
    columns: tuple[FlatColumn, ...]
    sources: tuple[Source, ...]
    fingerprint: Fingerprint
    threads: int | None = None

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of the tables."""
        return pa.schema([(column.name, column.kind) for column in self.columns])

    def __call__(self, plan: FilePlan) -> int:
        """Write a file; return the number of its rows.

        Raises:
            OutputConflict: its results hold other rows than the ledger says, or the same image twice.
            StorageError, TransientError: a store refuses, or does not answer.
        """
        with TemporaryDirectory(prefix="trapline-") as scratch, sql.connect(scratch, self.threads) as connection:
            with sql.translated(self.source.output):
                self._read(connection, plan)
                self._check(connection, plan)
            query = f"FROM flat ORDER BY {order(self.columns)}"
            rows = sql.stream(connection, query, _BATCH, self.source.output)
            origin = Origin(self.fingerprint, contents.identity(plan.parts))
            metadata = contents.to_metadata(plan.parts)
            return tables.publish(plan.url, self.schema, rows, origin, scratch, metadata, ROWS_PER_GROUP)

    def _read(self, connection: duckdb.DuckDBPyConnection, plan: FilePlan) -> None:
        """Make the table `flat` of the rows, in no order."""
        urls = [self._url(part) for part in plan.changed]
        folders = [dataset.shard_folder(url, self.source.output) for url in urls]
        paths = [part.result for part in plan.changed]
        files = pa.table({"url": urls, "result": paths, "folder": folders}, schema=_FILES)
        connection.register("files", files)
        connection.register("kept", pa.table({"result": pa.array([part.result for part in plan.kept], pa.string())}))
        relations = []
        if plan.changed:
            relations.append(select(self.columns, sql.read_parquet(urls), self.sources))
        if plan.before and plan.kept:
            names = ", ".join(f'"{column.name}"' for column in self.columns)
            relations.append(f"SELECT {names} FROM {sql.read_parquet([plan.before])} SEMI JOIN kept USING (result)")
        connection.execute(f"CREATE TABLE flat AS {' UNION ALL '.join(relations)}")

    def _check(self, connection: duckdb.DuckDBPyConnection, plan: FilePlan) -> None:
        names = [column.name for column in self.columns]
        counted = connection.execute(
            f"SELECT result, count(*) FROM flat WHERE {dataset.own_rows(names)} GROUP BY result"
        ).fetchall()
        by_url = {part.result: self._url(part) for part in plan.parts}
        wanted = set(by_url.values())
        files = tuple(file for file in self.source.files if file.url in wanted)
        dataset.require_all(replace(self.source, files=files), {by_url[result]: count for result, count in counted})
        keys = ", ".join(name for name in ("image_uri", "crop", "frame_seconds") if name in names)
        twice = connection.execute(
            f"SELECT image_uri, min(result) FROM flat GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if twice:
            raise OutputConflict(
                f"{store.join(self.source.output, twice[1])}: has {twice[0]} twice; run `trapline verify`, and "
                "classify its shard again"
            )

    def _url(self, part: Part) -> str:
        return store.join(self.source.output, part.result)
