"""Show figures as a table on the terminal, and write them to a JSON file with the machine's name."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from jobs.benchmark.rounds import machine

Json = Annotated[Path | None, Parameter(help="Write all figures to this file too.")]
Rounds = Annotated[int, Parameter(help="Rounds that count; one more warms up.")]


def new_table(*headings: str) -> Table:
    """Return a table of figures, the first column to the left."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right")
    return table


def write_figures(path: Path | None, name: str, figures: dict[str, Any]) -> None:
    """Write the figures of a benchmark and what machine they are of, where there is a path."""
    if path:
        path.write_text(json.dumps({"benchmark": name, "machine": machine(), **figures}, indent=2))
