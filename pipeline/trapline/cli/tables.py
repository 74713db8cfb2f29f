"""Write results without vectors, in few large files.

RESULTS is the OUTPUT of `classify` or `rescore`: a file for each shard, with vectors. TABLES gets the same rows in
files of a million images, sorted by place and time, without vectors, lists and sidecars: `top_k` becomes `species_1`,
`probability_1` and so on, `box` becomes `box_left`, `box_top`, `box_width` and `box_height`. All of its files are one
table, for DuckDB, R, pandas, Polars, Spark, Athena and BigQuery. `result` is the path of a row's result file below
RESULTS, which has the rest; `folder` is the folder of its shard.

Run it again after `classify`: it writes the files whose shards changed, and new shards fill the last file. A file is
replaced whole, and a shard stays in its file, so that a reader never finds a row twice. With --iceberg a run is seen
whole or not at all. On the cluster that RAY_ADDRESS names, if it is set, files are written in parallel.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import track

from trapline.cli.run_job import command, run
from trapline.errors import UsageError

app = command("tables", __doc__)


@app.default
def main_tables(
    results_at: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify or rescore; path or URL.")],
    tables_at: Annotated[str, Parameter(name="TABLES", help="A separate folder for the tables; path or URL.")],
    /,
    *,
    deployment_from: Annotated[
        tuple[str, ...],
        Parameter(
            help="Add the columns `deployment` and `camera`, and sort by them: a path pattern such as "
            "`site={site}/{camera}/…`, `metadata:FIELD` of the sidecar, or `serial` (the camera's, in EXIF). Repeat it "
            "for alternatives: the first that an image has is used. Default: neither column, sorted by folder."
        ),
    ] = (),
    images_per_file: Annotated[
        int, Parameter(help="After so many images a file takes no more shards.", validator=Number(gte=1))
    ] = 1_000_000,
    iceberg: Annotated[
        str | None,
        Parameter(
            help="Make an Iceberg table of this name, such as archive.images, of which each run is one snapshot; "
            "TABLES is then read through its catalogue alone. Needs the extra `iceberg`."
        ),
    ] = None,
    catalog: Annotated[
        str | None,
        Parameter(
            help="Name of a catalogue in pyiceberg's configuration, with --iceberg. Default: SQLite, in "
            "TABLES/_trapline/catalog.db."
        ),
    ] = None,
    replace: Annotated[
        bool, Parameter(help="Overwrite tables that were made of other results or with other options.")
    ] = False,
) -> int:
    """Write rows without vectors in few large files."""
    from trapline.analysis import dataset
    from trapline.analysis.flat_tables import build
    from trapline.analysis.flat_tables.iceberg import IcebergName

    console = Console()

    def progress(answers: Iterable[int], total: int) -> Iterable[int]:
        return track(answers, "files", total, console=console, disable=not console.is_terminal, transient=True)

    if catalog and not iceberg:
        raise UsageError("tables: --catalog names the catalogue of an Iceberg table; give --iceberg, too")
    name = IcebergName(iceberg, catalog) if iceberg else None
    found = dataset.find(results_at)
    account = build.build(found, tables_at, deployment_from, images_per_file, replace, name, progress)
    changes = f"{account.unchanged:,} unchanged, {account.removed:,} removed"
    console.print(f"files   {account.files:,} ({changes})", highlight=False)
    rows = f"{account.rows:,} of {account.images:,} images in {account.shards:,} shards"
    console.print(f"rows    {rows}", highlight=False)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    return run(app, arguments)
