"""Search by example: the images of an archive that look most like one, or several, that you name.

An example is an image_uri of the results, or the URL of a picture; for a picture, --model names the checkpoint that the
results were computed with. The search is exact: the cosine between embeddings, over all rows.
"""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter, validators
from rich.console import Console

from trapline.analysis import dataset, sql
from trapline.analysis.search import listing, similarity
from trapline.cli.run_job import run

app = App(name="trapline search", help=__doc__, version_flags=(), result_action="return_value")


@app.default
def search(
    output: Annotated[str, Parameter(name="RESULTS", help="Where `classify` wrote; any URL.")],
    /,
    *,
    like: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(),
            help="An image_uri or a picture; given several times, each image counts by the example it is nearest.",
        ),
    ],
    model: Annotated[str | None, Parameter(help="Checkpoint of the results, for examples that are pictures.")] = None,
    k: Annotated[int, Parameter(name=("-k", "--count"), validator=validators.Number(gte=1), help="How many.")] = 20,
    where: Annotated[
        str | None, Parameter(help="Among these rows only: a condition in SQL, e.g. \"species = 'Vulpes vulpes'\".")
    ] = None,
    csv: Annotated[str | None, Parameter(help="Write the list to this file, too; any URL.")] = None,
    json: Annotated[str | None, Parameter(help="Likewise.")] = None,
    parquet: Annotated[str | None, Parameter(help="Likewise.")] = None,
) -> int:
    """Find the images most like an example."""
    found = dataset.find(output)
    found.refuse_crops("search")
    connection = sql.connect()
    dataset.view(connection, found)
    examples = similarity.examples(connection, found, like, model)
    nearest = f"FROM {similarity.nearest(connection, found, examples, k, where)} ORDER BY rank"
    listing.save(connection, nearest, {"csv": csv, "json": json, "parquet": parquet})
    console = Console()
    listing.show(console, connection, nearest, k)
    if not connection.execute(f"SELECT 1 FROM ({nearest}) LIMIT 1").fetchall():
        console.print("No other image has an embedding" + (" and meets --where." if where else "."))
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the job; gives the exit code."""
    return run(app, arguments)
