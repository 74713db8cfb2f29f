"""Trapline measured beside what else one could use, on the same weights and images, taking turns.

Figures are medians over the rounds, and ratios are taken within a round: machines are shared, and their speed drifts.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from jobs.benchmark import model as model_benchmark
from jobs.benchmark.rounds import machine
from jobs.command_line import run

app = App(name="trapline benchmark", help=__doc__, version_flags=(), result_action="return_value")

Json = Annotated[Path | None, Parameter(help="Write all figures to this file too.")]
Rounds = Annotated[int, Parameter(help="Rounds that count; one more warms up.")]


@app.command
def model(
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int = 8,
    rounds: Rounds = 5,
    compiled: Annotated[bool, Parameter(help="With birder's compiled network: 1 to 2 minutes more.")] = True,
    json: Json = None,
) -> int:
    """The network alone, against birder's, by precision."""
    console = Console()
    where: Literal["cpu", "cuda"] = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    rows, peaks = model_benchmark.measure(console, where, batch_size, rounds, compiled)
    table = _table("network", "images/s", f"× {rows[0].name}", "of peak", "top-1", "cosine ≥", "|Δp| ≤")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.images_per_second:.2f}",
            row.times_birder,
            f"{row.share_of_peak:.0%}",
            f"{row.top1_agreement:.1%}",
            f"{row.cosine:.6f}",
            f"{row.max_probability_error:.1e}",
        )
    console.print(table)
    shown = ", ".join(f"{gflops:,.0f} GFLOP/s in {precision}" for precision, gflops in peaks.items())
    console.print(f"{model_benchmark.VARIANT} at 384², batches of {batch_size}, {where}; peak, measured: {shown}.")
    _write(json, "model", {"rows": [asdict(row) for row in rows], "peaks": peaks, "batch_size": batch_size})
    return 0


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right")
    return table


def _write(path: Path | None, name: str, figures: dict[str, Any]) -> None:
    if path:
        path.write_text(json.dumps({"benchmark": name, "machine": machine(), **figures}, indent=2))


def main(arguments: Sequence[str]) -> int:
    """Run the benchmarks; gives the exit code."""
    return run(app, arguments)
