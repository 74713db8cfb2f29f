"""Trapline measured beside what else one could use, on the same weights and images, taking turns.

Figures are medians over the rounds, and ratios are taken within a round: machines are shared, and their speed drifts.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import torch
from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.benchmark import checked as checked_benchmark
from jobs.benchmark import clips as clips_benchmark
from jobs.benchmark import decoding, gpu_steps, whole_runs
from jobs.benchmark import flat_tables as flat_tables_benchmark
from jobs.benchmark import growth as growth_benchmark
from jobs.benchmark import model as model_benchmark
from jobs.benchmark import planning as planning_benchmark
from jobs.benchmark.model import random_model
from jobs.benchmark.rounds import machine
from trapline.cli.run_job import run as run_app
from trapline.errors import UsageError
from trapline.model import checkpoint

app = App(name="trapline benchmark", help=__doc__, version_flags=(), result_action="return_value")

Json = Annotated[Path | None, Parameter(help="Write all figures to this file too.")]
Rounds = Annotated[int, Parameter(help="Rounds that count; one more warms up.")]


@app.command
def model(
    folder: Annotated[Path | None, Parameter(help="Photographs to compare answers over; default: noise.")] = None,
    *,
    model: Annotated[str | None, Parameter(help="A trained checkpoint; default: Hiera-Base of random weights.")] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: Annotated[
        tuple[int, ...], Parameter(help="May be given several times; default: 8, or 64 on a GPU.")
    ] = (),
    rounds: Rounds = 5,
    compiled: Annotated[bool, Parameter(help="With compiled networks: 1 to 2 minutes more for each.")] = True,
    tuned: Annotated[
        bool, Parameter(help="On a GPU, compiled with kernels that are tried out too: many minutes.")
    ] = False,
    json: Json = None,
) -> int:
    """Compare the network alone with birder's, by precision: speed, and distance of its answers from float32's."""
    console = Console()
    where: Literal["cpu", "cuda"] = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    loaded = checkpoint.load(model) if model else random_model()
    pixels = decoding.pixels(decoding.photographs(folder), loaded.size) if folder else None
    sizes = batch_size or model_benchmark.BATCH_SIZES[where]
    rows, peaks = model_benchmark.measure(console, loaded, pixels, where, sizes, rounds, compiled, tuned)
    table = new_table("network", "batch", "images/s", f"× {rows[0].name}", "of peak", "top-1", "cosine ≥", "|Δp| ≤")
    for row in rows:
        table.add_row(
            row.name,
            str(row.batch_size),
            *(
                [row.trouble]
                if row.trouble
                else (
                    _figure(row.images_per_second, ".2f"),
                    str(row.times_birder or "-"),
                    _figure(row.share_of_peak, ".0%"),
                    _figure(row.top1_agreement, ".1%"),
                    _figure(row.cosine, ".6f"),
                    _figure(row.max_probability_error, ".1e"),
                )
            ),
        )
    console.print(table)
    shown = ", ".join(f"{gflops:,.0f} GFLOP/s in {precision}" for precision, gflops in peaks.items())
    height, width = loaded.size
    images = "noise" if pixels is None else f"{len(pixels)} photographs"
    console.print(f"{loaded.variant} at {height} x {width}, {images}, {where}; peak, measured: {shown}.")
    write_figures(json, "model", {"rows": [asdict(row) for row in rows], "peaks": peaks, "model": loaded.source})
    return 0


@app.command
def decode(
    folder: Annotated[Path, Parameter(help="Photographs.")],
    *,
    model: Annotated[str | None, Parameter(help="A trained checkpoint; default: Hiera-Base of random weights.")] = None,
    rounds: Rounds = 5,
    json: Json = None,
) -> int:
    """Time bytes to pixels on one core, beside birder's transform; compare what the model makes of the pixels."""
    console = Console()
    images = decoding.photographs(folder)
    loaded = checkpoint.load(model) if model else random_model()
    rows = decoding.measure(console, images, loaded, rounds)
    damage = decoding.cost_of_damage(console, images, loaded.size, rounds)
    table = new_table(
        "way", "images/s", f"× {rows[0].name}", "pixels differ by", "at most", "top-1", "cosine ≥", "mean"
    )
    for row in rows:
        table.add_row(
            row.name,
            f"{row.images_per_second:.1f}",
            row.times_birder,
            f"{row.mean_difference:.2f}",
            str(row.largest_difference),
            f"{row.top1_agreement:.1%}",
            *(f"{cosine:.5f}" for cosine in row.cosine),
        )
    console.print(table)
    megapixels = decoding.megapixels(images)
    console.print(f"{len(images)} photographs of {megapixels:.1f} megapixels on average, one core.")
    for name, cost in damage.items():
        console.print(f"A file that is {name} takes {cost} times as long as a sound one.")
    figures = {"images": len(images), "megapixels": megapixels, "damage": {k: asdict(v) for k, v in damage.items()}}
    write_figures(json, "decode", {"rows": [asdict(row) for row in rows], **figures})
    return 0


@app.command
def clips(
    *,
    model: Annotated[str | None, Parameter(help="A trained checkpoint; default: Hiera-Base of random weights.")] = None,
    seconds: Annotated[int, Parameter(help="Length of a clip.")] = 10,
    rounds: Rounds = 3,
    json: Json = None,
) -> int:
    """Time clips of 1080p on one core, by container and codec, beside photographs: decoding, and with the network."""
    console = Console()
    found = clips_benchmark.measure(console, checkpoint.load(model) if model else random_model(), seconds, rounds)
    table = new_table("clip", "MB", "frames/s", "in a sandbox ×", "photographs, decoded", "classified")
    for row in found.rows:
        ratios = (str(ratio) for ratio in (row.in_sandbox, row.photographs_decoded, row.photographs_classified))
        table.add_row(row.kind, f"{row.megabytes:.1f}", f"{row.frames_per_second:.0f}", *ratios)
    console.print(table)
    rates = (
        f"{found.photographs_per_second:.1f} photographs a second, {found.network_per_second:.2f} through the network"
    )
    console.print(f"Clips of {seconds} s, {found.rows[0].frames} frames sampled; one core: {rates}.")
    write_figures(json, "clips", {**asdict(found), "seconds": seconds})
    return 0


@app.command
def pipeline(
    folder: Annotated[Path, Parameter(help="Photographs.")],
    *,
    model: Annotated[
        str | None,
        Parameter(help="Checkpoint of a Hiera-Base; default: random weights, and classes that they tell apart."),
    ] = None,
    small: Annotated[int, Parameter(help="Images in the small archive.")] = 16,
    large: Annotated[int, Parameter(help="Images in the large archive.")] = 64,
    rounds: Rounds = 2,
    json: Json = None,
) -> int:
    """Time whole programs, from photographs to answers on disk: birder-predict, a bare loop, naive Ray Data too."""
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


@app.command
def growth(
    folder: Annotated[Path, Parameter(help="Photographs.")],
    *,
    base: Annotated[int, Parameter(help="Images in the smallest archive.")] = 100,
    times: Annotated[tuple[int, ...], Parameter(help="Sizes of archives, in multiples of that.")] = (1, 10, 100),
    json: Json = None,
) -> int:
    """Measure time and memory of `classify` as the archive grows, shards shrink, decode workers multiply."""
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


@app.command
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


@app.command
def checked(
    folder: Annotated[Path, Parameter(help="Photographs; some ten or more.")],
    *,
    images: Annotated[int, Parameter(help="Pictures made of drawings and photographs, over all networks.")] = 100_000,
    model: Annotated[tuple[str, ...], Parameter(help="Trained checkpoints; default: four small ones, trained.")] = (),
    json: Json = None,
) -> int:
    """Compare the classes of `--precision checked` with fp32's: how many differ, how many are computed twice."""
    console = Console()
    with console.status("drawing"):
        drawings = checked_benchmark.drawings(checked_benchmark.DRAWINGS, seed=1)
    pictures = [drawings, checked_benchmark.photographs(decoding.photographs(folder))]
    with console.status("training"):
        models = [checkpoint.load(path) for path in model] or [
            checked_benchmark.trained(kind, pictures, seed)
            for seed, kind in enumerate(checked_benchmark.NETWORKS, start=1)
        ]
    rows = list(checked_benchmark.measure(console, models, pictures, images))
    headings = (
        "images",
        "accuracy",
        "changed by bf16",
        "by checked",
        "computed again",
        "|Δp| ≤",
        "furthest",
        "cosine ≥",
    )
    table = new_table("network", "pictures", *headings)
    for row in rows:
        table.add_row(
            row.network,
            row.pictures,
            f"{row.images:,}",
            "-" if row.accuracy is None else f"{row.accuracy:.1%}",
            str(row.changed_by_bf16),
            str(row.changed_by_checked),
            f"{row.computed_again:.2%}",
            f"{row.probability_error:.3f}",
            f"{row.furthest_changed:.0%}",
            f"{row.cosine:.5f}",
        )
    console.print(table)
    console.print(
        "furthest: of the images that bf16 changed, from the boundary, as a share of the bound.", highlight=False
    )
    write_figures(json, "checked", {"rows": [asdict(row) for row in rows]})
    return 0


@app.command
def gpu(
    *,
    step: Annotated[tuple[int, ...], Parameter(help="1 to 4, may be given several times; default: all.")] = (),
    device: Annotated[Literal["cpu", "cuda"], Parameter(help="cpu: small sizes, to see that the steps work.")] = "cuda",
    minutes: Annotated[float, Parameter(help="Time of a step, after which it begins nothing more.")] = 8,
    compile_cache: Annotated[Path | None, Parameter(help="Keep compiled networks here, for the next node.")] = None,
    json: Json = None,
) -> int:
    """Measure a GPU step by step: its parts, the networks, where time goes, whole runs (the last needs Ray)."""
    console = Console()
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda: torch finds no GPU here; try the steps with --device cpu")
    if unknown := set(step) - {1, 2, 3, 4}:
        raise UsageError(f"--step {min(unknown)}: does not exist; choose from 1 to 4")
    if compile_cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(compile_cache.absolute())
    if device == "cuda":
        scope = gpu_steps.Scope(device, random_model(), minutes=minutes)
    else:
        scope = gpu_steps.small(device, random_model("hiera_abswin_tiny", (64, 64)))
    steps: dict[str, gpu_steps.Tables] = {}
    for number in step or (1, 2, 3, 4):
        name = f"step {number}"

        def keep(tables: gpu_steps.Tables, name: str = name) -> None:
            steps[name] = tables
            write_figures(json, "gpu", {"steps": steps})

        for title, rows in gpu_steps.run_step(console, scope, number, keep).items():
            headings = gpu_steps.columns(rows)
            table = new_table(*headings)
            for row in rows:
                table.add_row(*(_cell(row.get(heading, "")) for heading in headings))
            console.print(f"[bold]{name}: {title}[/bold]")
            console.print(table)
    return 0


@app.command
def tables(
    place: Annotated[str, Parameter(help="An empty folder on S3, as an s3:// URL.")],
    *,
    shards: int = 2_000,
    images: Annotated[int, Parameter(help="Images in each shard.")] = 10,
    json: Json = None,
) -> int:
    """Ask DuckDB over s3fs: results with a file for each shard, and what `trapline tables` made of them."""
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


def new_table(*headings: str) -> Table:
    """Return a table of figures, the first column to the left."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right")
    return table


def _cell(value: str | float) -> str:
    """Return a figure to four places, or the beginning of a text: the whole of it is in the JSON."""
    return f"{value:,.4g}" if isinstance(value, float) else escape(str(value)[:60])


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def write_figures(path: Path | None, name: str, figures: dict[str, Any]) -> None:
    """Write the figures of a benchmark and what machine they are of, where there is a path."""
    if path:
        path.write_text(json.dumps({"benchmark": name, "machine": machine(), **figures}, indent=2))


def main(arguments: Sequence[str]) -> int:
    """Run the benchmarks; return the exit code."""
    return run_app(app, arguments)
