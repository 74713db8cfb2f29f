"""Find the images that look most like an example.

RESULTS is the OUTPUT of `classify`. An example is an image_uri of the results, or the path or URL of an image file or a
clip; for a file, --model names the checkpoint that the results were computed with. The search is exact: cosine
similarity of the embeddings, over all images and the frames of clips; a clip is listed once, with the second of its
nearest frame.
"""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from trapline.cli.run_job import INT32, command, run

app = command("search", __doc__)


@app.default
def search(
    output: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify; path or URL.")],
    /,
    *,
    like: Annotated[
        tuple[str, ...],
        Parameter(
            help="An image_uri or a file of an image or a clip; a clip stands for the mean of its frames. Repeat it "
            "for several examples: each image is compared with the example nearest to it.",
        ),
    ],
    model: Annotated[str | None, Parameter(help="Checkpoint of the results, for examples that are files.")] = None,
    k: Annotated[
        int,
        Parameter(
            name=("-k", "--count"), validator=Number(gte=1, lte=INT32), help="Number of images and clips to list."
        ),
    ] = 20,
    where: Annotated[
        str | None,
        Parameter(
            help="Search only rows that meet this SQL condition, such as \"species = 'Strix aluco'\"; of clips, only "
            "frames that do.",
        ),
    ] = None,
    csv: Annotated[str | None, Parameter(help="Also write the rows to this file as CSV; path or URL.")] = None,
    json: Annotated[str | None, Parameter(help="Also write the rows as JSON.")] = None,
    parquet: Annotated[str | None, Parameter(help="Also write the rows as Parquet.")] = None,
) -> int:
    """Find the images most like an example."""
    from trapline.analysis import dataset, sql
    from trapline.analysis.search import listing, similarity

    found = dataset.find(output)
    found.refuse_crops("search")
    connection = sql.connect()
    dataset.view(connection, found, frames=True)
    examples = similarity.examples(connection, found, like, model)
    nearest = f"FROM {similarity.nearest(connection, found, examples, k, where)} ORDER BY rank"
    listing.save(connection, nearest, {"csv": csv, "json": json, "parquet": parquet})
    console = Console()
    listing.show(console, connection, nearest, k)
    if not connection.execute(f"SELECT 1 FROM ({nearest}) LIMIT 1").fetchall():
        console.print("No other image has an embedding" + (" and meets --where." if where else "."))
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    return run(app, arguments)
