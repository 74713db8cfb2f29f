"""List images that an archive holds more than once.

RESULTS is the OUTPUT of `classify`. Duplicates have the same bytes. With --near, images of one camera (EXIF make, model
and serial number) taken within --window of each other are compared by the cosine similarity of their embeddings; images
without a time, within their shard. A clip counts once, by its bytes and by the mean embedding of its frames.
"""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from trapline.cli.run_job import INT32, YEAR_S, command, run

app = command("duplicates", __doc__)


@app.default
def duplicates(
    output: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify; path or URL.")],
    /,
    *,
    near: Annotated[bool, Parameter(help="List pairs that are almost the same, not only the same bytes.")] = False,
    threshold: Annotated[
        float, Parameter(validator=Number(gt=-1, lte=1), help="Minimum cosine similarity of a pair, with --near.")
    ] = 0.98,
    window: Annotated[
        float,
        Parameter(validator=Number(gte=0, lte=YEAR_S), help="Maximum time between the two, in seconds, with --near."),
    ] = 60.0,
    k: Annotated[
        int, Parameter(name=("-k", "--count"), validator=Number(gte=1, lte=INT32), help="Number of rows to print.")
    ] = 20,
    csv: Annotated[str | None, Parameter(help="Write all rows to this file as CSV; path or URL.")] = None,
    json: Annotated[str | None, Parameter(help="Also write the rows as JSON.")] = None,
    parquet: Annotated[str | None, Parameter(help="Also write the rows as Parquet.")] = None,
) -> int:
    """List images that an archive holds more than once."""
    from trapline.analysis import dataset, sql
    from trapline.analysis.search import duplicates as found_in
    from trapline.analysis.search import listing

    found = dataset.find(output)
    if near:
        found.refuse_crops("duplicates --near")
    connection = sql.connect()
    dataset.view(connection, found)
    if near:
        compared = found_in.near(connection, found, threshold, window)
        rows = f"FROM {compared.table} ORDER BY cosine DESC, image_uri, near_uri"
    else:
        rows = f'FROM {found_in.exact(connection, found)} ORDER BY "group", image_uri'
    listing.save(connection, rows, {"csv": csv, "json": json, "parquet": parquet})
    console = Console()
    listing.show(console, connection, rows, k)
    if near:
        ((pairs,),) = connection.execute("SELECT count(*) FROM near").fetchall()
        console.print(
            f"{compared.images:,} images compared; with a cosine of {threshold:g} or more, of one camera and within "
            f"{window:g} s: {pairs:,} pair{'' if pairs == 1 else 's'}.",
            highlight=False,
        )
        if compared.cut:
            console.print(
                f"{compared.cut:,} images have more before them in their window than the {found_in.REACH:,} that they "
                "were compared with: a clock that stood still, or none.",
                highlight=False,
            )
    else:
        ((groups, images),) = connection.execute('SELECT count(DISTINCT "group"), count(*) FROM exact').fetchall()
        console.print(
            f"{images:,} images share their bytes with another, in {groups:,} group{'' if groups == 1 else 's'}.",
            highlight=False,
        )
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    return run(app, arguments)
