"""Commands about what a store costs: planning a second night, and questions to results and to tables."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from jobs.benchmark import flat_tables as flat_tables_benchmark
from jobs.benchmark import planning as planning_benchmark
from jobs.benchmark.figures import Json, new_table, write_figures


def planning(
    place: Annotated[str, Parameter(help="An empty folder, on the store to be measured; any URL.")],
    *,
    shards: int = 20_000,
    json: Json = None,
) -> int:
    """Plan a second night over an archive that is done: cost per shard, without and with the cache of footers."""
    console = Console()
    rows = planning_benchmark.measure(console, place, shards)
    table = new_table("step", "seconds", "ms a shard")
    for row in rows:
        table.add_row(row.step, f"{row.seconds:.1f}", f"{row.milliseconds_a_shard:.2f}")
    console.print(table)
    console.print(f"{shards:,} shards in {place}.", highlight=False)
    write_figures(json, "planning", {"rows": [asdict(row) for row in rows], "shards": shards})
    return 0


def tables(
    place: Annotated[str, Parameter(help="An empty folder on S3, as an s3:// URL.")],
    *,
    shards: int = 2_000,
    images: Annotated[int, Parameter(help="Images in each shard.")] = 10,
    json: Json = None,
) -> int:
    """Query by DuckDB over s3fs: results with a file for each shard, and what `trapline tables` made of them."""
    console = Console()
    rows = flat_tables_benchmark.measure(console, place, shards, images)
    table = new_table("question", "of", "files", "HEAD", "GET", "LIST", "requests", "MB", "seconds")
    for row in rows:
        counts = (row.files, row.heads, row.gets, row.lists, row.requests)
        table.add_row(
            row.question, row.over, *(f"{n:,}" for n in counts), f"{row.megabytes:,.1f}", f"{row.seconds:.2f}"
        )
    console.print(table)
    console.print(f"{shards:,} shards of {images:,} images in {place}.", highlight=False)
    write_figures(json, "tables", {"rows": [asdict(row) for row in rows], "shards": shards, "images": images})
    return 0
