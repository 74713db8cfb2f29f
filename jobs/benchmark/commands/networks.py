"""Commands about the network: its speed and answers beside birder's, `checked` beside fp32, a GPU step by step."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import torch
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from jobs.benchmark import checked as checked_benchmark
from jobs.benchmark import decoding, gpu_steps
from jobs.benchmark import model as model_benchmark
from jobs.benchmark.figures import Json, Rounds, new_table, write_figures
from jobs.benchmark.model import random_model
from trapline.errors import UsageError
from trapline.model import checkpoint


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
    """Compare the network with birder's, by precision: speed, and how far its answers are from float32's."""
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


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def checked(
    folder: Annotated[Path, Parameter(help="Photographs; some ten or more.")],
    *,
    images: Annotated[int, Parameter(help="Pictures made of drawings and photographs, over all networks.")] = 100_000,
    model: Annotated[tuple[str, ...], Parameter(help="Trained checkpoints; default: four small ones, trained.")] = (),
    json: Json = None,
) -> int:
    """Compare the classes of `--precision checked` with fp32's: how many differ, and how many are computed twice."""
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


def gpu(
    *,
    step: Annotated[tuple[int, ...], Parameter(help="1 to 4, may be given several times; default: all.")] = (),
    device: Annotated[Literal["cpu", "cuda"], Parameter(help="cpu: small sizes, to see that the steps work.")] = "cuda",
    minutes: Annotated[float, Parameter(help="Time of a step, after which it begins nothing more.")] = 8,
    compile_cache: Annotated[Path | None, Parameter(help="Keep compiled networks here, for the next node.")] = None,
    json: Json = None,
) -> int:
    """Measure on a GPU, step by step: its peaks, the networks, where time goes, whole runs (the last needs Ray)."""
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


def _cell(value: str | float) -> str:
    """Return a figure to four places, or the beginning of a text: the whole of it is in the JSON."""
    return f"{value:,.4g}" if isinstance(value, float) else escape(str(value)[:60])
