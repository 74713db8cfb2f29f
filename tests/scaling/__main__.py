"""`python -m tests.scaling scale` and `python -m tests.scaling feeding`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from jobs.benchmark.figures import Json, new_table, write_figures
from tests.scaling import simulation
from trapline.cli.run_job import run as run_app

app = App(name="scaling", help=__doc__, version_flags=(), result_action="return_value")


@app.command
def scale(
    *,
    sizes: Annotated[tuple[str, ...], Parameter(help="SHARDSxIMAGES in each of them; the largest last.")] = (
        "100x1", "1000x1", "100x64", "300x64", "100x256", "3000x1", "1000x64",
    ),
    batch_size: Annotated[int, Parameter(help="Images in a chunk.")] = simulation.BATCH,
    json: Json = None,
) -> int:  # fmt: skip
    """The flow with stand-ins for decoding and inference: what the rest costs, at sizes that no test can have."""
    console = Console()
    shapes = [simulation.Size.parse(size, batch_size) for size in sizes]
    with TemporaryDirectory() as scratch:
        runs = simulation.measure_sizes(console, Path(scratch), shapes)
    heads = "shards", "images", "seconds", "images a second", "driver CPU s", "driver MB", "KB a chunk"
    table = new_table(*heads, "store MB")
    for run in runs:
        took = f"{run.seconds:.1f}", f"{run.images_per_second:,.0f}", f"{run.driver_seconds:.2f}"
        memory = f"{run.driver_bytes / 1e6:,.0f}", f"{run.driver_bytes_a_chunk / 1e3:.1f}"
        table.add_row(f"{run.shards:,}", f"{run.images:,}", *took, *memory, f"{run.store_bytes / 1e6:,.0f}")
    console.print(table)
    fits = simulation.fits(shapes, runs)
    targets = [replace(target, batch_size=batch_size) for target in simulation.TARGETS]
    names = [f"{target.total:,} images in {target.shards:,} shards" for target in targets]
    table = new_table("cost", "fixed", "a shard", "a chunk", "an image", "error, largest run", *names)
    for name, fit in fits.items():
        each = (f"{cost:.3g}" for cost in (fit.fixed, fit.shard, fit.chunk, fit.image))
        table.add_row(name, *each, f"{fit.held_out_error:+.0%}", *(f"{fit(target):,.0f}" for target in targets))
    if fits:
        console.print(table)
        console.print("The error is that of the largest run's cost as predicted from the others.")
    write_figures(
        json, "scale", {"runs": [asdict(run) for run in runs], "fits": {k: asdict(fit) for k, fit in fits.items()}}
    )
    return 0


@app.command
def feeding(
    *,
    workers: Annotated[tuple[int, ...], Parameter(help="Numbers of decode workers.")] = (1, 2, 4, 8),
    decode_rate: Annotated[float, Parameter(help="Images/s of one of them.")] = 77.5,
    predict_rate: Annotated[float, Parameter(help="Images/s of the one predictor.")] = 400.0,
    json: Json = None,
) -> int:
    """The flow with workers that sleep instead of decoding and predicting: speed by the number of decode workers."""
    console = Console()
    with TemporaryDirectory() as scratch:
        runs = simulation.measure_workers(console, Path(scratch), workers, decode_rate, predict_rate)
    table = new_table("decode workers", "images/s", "of ideal", "bound by", "decoding", "predicting", "driver, cores")
    for count, run in zip(workers, runs, strict=True):
        share = run.images_per_second / min(count * decode_rate, predict_rate)
        busy = (f"{run.busy[kind]:.0%}" for kind in ("decode", "predict"))
        cores = f"{run.driver_seconds / run.seconds:.2f}"
        table.add_row(str(count), f"{run.images_per_second:,.0f}", f"{share:.0%}", run.bound_by, *busy, cores)
    console.print(table)
    console.print(f"Decode workers take 1/{decode_rate:g} s for an image, the one predictor 1/{predict_rate:g} s.")
    rates = {"decode_rate": decode_rate, "predict_rate": predict_rate}
    write_figures(json, "feeding", {"workers": workers, "runs": [asdict(run) for run in runs], **rates})
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run a simulation; return the exit code."""
    return run_app(app, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
