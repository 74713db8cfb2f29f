"""Commands about whole programs: beside others, and as the archive grows."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from jobs.benchmark import decoding, whole_runs
from jobs.benchmark import growth as growth_benchmark
from jobs.benchmark.figures import Json, Rounds, new_table, write_figures
from jobs.benchmark.model import random_model
from trapline.model import checkpoint


def pipeline(
    folder: Annotated[Path, Parameter(help="Photographs.")],
    *,
    model: Annotated[
        str | None,
        Parameter(help="Checkpoint of a Hiera-Base; default: random weights, and classes that they tell apart."),
    ] = None,
    small: Annotated[int, Parameter(help="Images in the small archive.")] = 16,
    large: Annotated[int, Parameter(help="Images in the large archive.")] = 112,
    rounds: Rounds = 2,
    json: Json = None,
) -> int:
    """Time whole programs, from photographs to answers on disk, with birder-predict, a bare loop, naive Ray Data."""
    console = Console()
    images = decoding.photographs(folder)
    with TemporaryDirectory() as scratch:
        loaded = checkpoint.load(model) if model else whole_runs.with_answers(random_model(), images)
        rows, twice = whole_runs.measure(console, images, loaded, Path(scratch), small, large, rounds)
    precisions = [f"trapline {precision} is ×" for precision in whole_runs.PRECISIONS]
    table = new_table("program", "images/s", *precisions, "start and end, s")
    for row in rows:
        table.add_row(row.name, f"{row.images_per_second:.2f}", *row.as_fast_as.values(), f"{row.start_seconds:.1f}")
    console.print(table)
    console.print(f"{small} and {large} photographs of {decoding.megapixels(images):.1f} megapixels on average.")
    console.print(f"trapline auto computed {twice:.1%} of them twice.")
    figures = {"rows": [asdict(row) for row in rows], "computed_twice": twice, "small": small, "large": large}
    write_figures(json, "pipeline", figures)
    return 0


def growth(
    folder: Annotated[Path, Parameter(help="Photographs.")],
    *,
    base: Annotated[int, Parameter(help="Images in the smallest archive.")] = 100,
    times: Annotated[tuple[int, ...], Parameter(help="Sizes of archives, in multiples of that.")] = (1, 10, 100),
    json: Json = None,
) -> int:
    """Measure time and memory of `classify` with more images, more shards, more decode workers."""
    console = Console()
    with TemporaryDirectory() as scratch:
        runs = growth_benchmark.measure(console, decoding.photographs(folder), Path(scratch), base, times)
    kinds = ("driver", "reader", "predictor")
    table = new_table("images", "shards", "decode workers", "seconds", *(f"{kind}, MB" for kind in kinds))
    for each in runs:
        counts = f"{each.images:,}", f"{each.shards:,}", str(each.decode_workers), f"{each.seconds:.1f}"
        table.add_row(*counts, *(f"{each.peak.get(kind, 0) / 1e6:,.0f}" for kind in kinds))
    console.print(table)
    console.print("Peak memory is what the largest process of a kind holds for itself, shared memory left out.")
    write_figures(json, "growth", {"runs": [asdict(each) for each in runs]})
    return 0
