"""The flat tables as an Iceberg table: each run is one snapshot, so that readers see the old archive or the new.

    TABLES/data/images-NUMBER-DIGEST.parquet   the files; a file that is written again gets another name
    TABLES/metadata/                           Iceberg's
    TABLES/_trapline/catalog.db                the catalogue `trapline`, where no other is named

Files that no snapshot needs any more stay until the next run, for readers that have begun.
"""

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trapline.errors import OutputConflict, StorageError, TransientError, UsageError, in_one_line
from trapline.results import layout
from trapline.storage import store

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

DATA = "data"


@dataclass(frozen=True)
class IcebergName:
    """Which table of which catalogue.

    Attributes:
        table: its name, with its namespace: `archive.images`.
        catalog: name of a catalogue in pyiceberg's configuration; None for one in a file in TABLES.
    """

    table: str
    catalog: str | None = None


class IcebergTable:
    """A table in a catalogue, whose files lie below a folder."""

    def __init__(self, name: IcebergName, folder: str, schema: pa.Schema, may_create: bool) -> None:
        """Open the table, or create it.

        Args:
            name: of the table.
            folder: TABLES.
            schema: its columns, if it is created.
            may_create: whether it may be created; not where there are data files already, which it would not know.

        Raises:
            UsageError: pyiceberg is not installed, or the name or the catalogue is not one.
            OutputConflict: the catalogue does not know the table of these files, or knows it in another folder.
            StorageError, TransientError: the catalogue refuses, or does not answer.
        """
        if "." not in name.table.strip("."):
            raise UsageError(f"--iceberg {name.table}: give a namespace and a name, such as archive.images")
        catalog = _catalog(name, folder)
        with _translated(name.table):
            known = catalog.table_exists(name.table)
        if not known and not may_create:
            raise OutputConflict(
                f"{folder}: holds data files, and the catalogue knows no table {name.table}; name their catalogue with "
                "--catalog and their table with --iceberg, or overwrite them with --replace"
            )
        with _translated(name.table):
            if not known:
                catalog.create_namespace_if_not_exists(name.table.rpartition(".")[0])
                catalog.create_table(name.table, schema, location=folder, properties=_PROPERTIES)
            self._table: Table = catalog.load_table(name.table)
        if store.absolute(self._table.location()) != folder:
            raise OutputConflict(
                f"{name.table}: is the table of {self._table.location()} in this catalogue; give {folder} another name"
            )
        self._name = name.table

    def files(self) -> dict[str, Any]:
        """Return the data files of the current snapshot, by URL; raise as the constructor does."""
        with _translated(self._name):
            return {store.absolute(task.file.file_path): task.file for task in self._table.scan().plan_files()}

    def expire(self) -> None:
        """Forget all snapshots but the current one; raise as the constructor does."""
        current = self._table.current_snapshot()
        with _translated(self._name):
            old = [each.snapshot_id for each in self._table.snapshots() if current and each != current]
            if old:
                self._table.maintenance.expire_snapshots().by_ids(old).commit()
                self._table = self._table.refresh()

    def commit(self, schema: pa.Schema, added: Sequence[str], keep: Set[str]) -> None:
        """Make a snapshot of new files and of some of the current ones; none where these are all that there are.

        Args:
            schema: of the new files; the table gets their columns that it lacks.
            added: URLs of the new files.
            keep: URLs of files of the current snapshot.

        Raises:
            StorageError, TransientError: the catalogue refuses, or another program has changed the table meanwhile.
        """
        from pyiceberg.io.pyarrow import parquet_files_to_data_files

        gone = [file for url, file in self.files().items() if url not in keep]
        if not added and not gone:
            return
        with _translated(self._name), self._table.transaction() as transaction:
            with transaction.update_schema() as columns:
                columns.union_by_name(schema)
            # Files carry no numbers of columns: these are found by name.
            names = transaction.table_metadata.schema().name_mapping.model_dump_json()
            transaction.set_properties({"schema.name-mapping.default": names})
            with transaction.update_snapshot().overwrite() as snapshot:
                for file in gone:
                    snapshot.delete_data_file(file)
                for file in parquet_files_to_data_files(self._table.io, transaction.table_metadata, iter(added)):
                    snapshot.append_data_file(file)


_PROPERTIES = {"write.metadata.delete-after-commit.enabled": "true", "write.metadata.previous-versions-max": "10"}


def _catalog(name: IcebergName, folder: str) -> "Catalog":
    try:
        from pyiceberg.catalog import load_catalog

        if name.catalog:
            with _translated(f"--catalog {name.catalog}"):
                return load_catalog(name.catalog)
        from pyiceberg.catalog.sql import SqlCatalog
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--iceberg: the Python package {error.name} is not installed; run: pip install 'trapline[iceberg]'"
        ) from error
    if store.remote(folder) is not None:
        raise UsageError(
            f"{folder}: a catalogue in a file must lie on this machine; name one of pyiceberg's configuration with "
            "--catalog"
        )
    path = Path(layout.side_file(folder, "catalog.db"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _translated(str(path)):
        return SqlCatalog("trapline", uri=f"sqlite:///{path}", warehouse=folder)


@contextmanager
def _translated(place: str) -> Iterator[None]:
    """Turn what pyiceberg raises into an error that names the place."""
    from pyiceberg import exceptions

    own = (kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception))
    kinds: tuple[type[Exception], ...] = (OSError, ValueError, *own)
    try:
        yield
    except (exceptions.CommitFailedException, exceptions.CommitStateUnknownException) as error:
        raise TransientError(f"{place}: {in_one_line(error)}; run it again") from error
    except kinds as error:
        raise StorageError(f"{place}: {in_one_line(error)}") from error
