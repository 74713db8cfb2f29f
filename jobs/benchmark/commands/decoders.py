"""Commands about bytes to pixels on one core: photographs, and clips."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from jobs.benchmark import clips as clips_benchmark
from jobs.benchmark import decoding
from jobs.benchmark.figures import Json, Rounds, new_table, write_figures
from jobs.benchmark.model import random_model
from trapline.model import checkpoint


def decode(
    folder: Annotated[Path, Parameter(help="Photographs.")],
    *,
    model: Annotated[str | None, Parameter(help="A trained checkpoint; default: Hiera-Base of random weights.")] = None,
    rounds: Rounds = 5,
    json: Json = None,
) -> int:
    """Time bytes to pixels on one core, beside birder's transform, and compare the predictions for the pixels."""
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


def clips(
    *,
    model: Annotated[str | None, Parameter(help="A trained checkpoint; default: Hiera-Base of random weights.")] = None,
    seconds: Annotated[int, Parameter(help="Length of a clip.")] = 10,
    rounds: Rounds = 3,
    json: Json = None,
) -> int:
    """Time clips of 1080p on one core, by container and codec, beside photographs: decoding alone, and classifying."""
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
