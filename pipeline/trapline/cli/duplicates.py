"""Images that an archive holds more than once: the same bytes, in whichever shards, or with --near almost the same.

With --near, images of one camera (EXIF make, model and serial number) that were taken within --window of each other are
compared, by the cosine between their embeddings; those without a time, within their shard.
"""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter, validators
from rich.console import Console

from trapline.analysis import dataset, sql
from trapline.analysis.search import duplicates as found_in
from trapline.analysis.search import listing
from trapline.cli.run_job import run

app = App(name="trapline duplicates", help=__doc__, version_flags=(), result_action="return_value")


@app.default
def duplicates(
    output: Annotated[str, Parameter(name="RESULTS", help="Where `classify` wrote; any URL.")],
    /,
    *,
    near: Annotated[
        bool, Parameter(negative=(), help="Pairs that are almost the same, not only the same bytes.")
    ] = False,
    threshold: Annotated[
        float, Parameter(validator=validators.Number(gt=-1, lte=1), help="With --near: the least cosine.")
    ] = 0.98,
    window: Annotated[
        float, Parameter(validator=validators.Number(gte=0), help="With --near: seconds between the two, at most.")
    ] = 60.0,
    k: Annotated[
        int, Parameter(name=("-k", "--count"), validator=validators.Number(gte=1), help="How many rows to print.")
    ] = 20,
    csv: Annotated[str | None, Parameter(help="Write all of them to this file; any URL.")] = None,
    json: Annotated[str | None, Parameter(help="Likewise.")] = None,
    parquet: Annotated[str | None, Parameter(help="Likewise.")] = None,
) -> int:
    """List images that an archive holds more than once."""
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
    """Run the job; gives the exit code."""
    return run(app, arguments)
