"""Check a result against its input, image by image: each image one row, each row one image, with the same content.

Exit codes: 0 every image of the input is exactly one row; 1 something differs; 2 the invocation or a store is at fault.
"""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from trapline.cli.run_job import run
from trapline.errors import UsageError
from trapline.results.verify import Finding, reconcile

app = App(name="trapline verify", help=__doc__, version_flags=(), result_action="return_value")

# More than a screenful helps nobody.
_SHOWN = 20


@app.default
def verify(
    *paths: Annotated[str, Parameter(help="INPUT... OUTPUT, as for classify.")],
    sample: Annotated[int | None, Parameter(help="Read this many shards only, drawn at random.")] = None,
    seed: Annotated[int, Parameter(help="Of the draw.")] = 0,
) -> int:
    """Check a result against its input."""
    if len(paths) < 2:
        raise UsageError("verify: give INPUT... and then OUTPUT")
    console = Console()
    *inputs, output = paths
    shards = images = 0
    bad: list[Finding] = []
    gone: list[Finding] = []
    for finding in reconcile(inputs, output, sample, seed):
        shards += finding.uri is not None
        images += finding.images if finding.uri else 0
        if not finding.good:
            bad.append(finding)
        elif finding.uri is None:
            gone.append(finding)
    if bad:
        console.print(_table(bad))
    console.print(f"{images:,} images in {shards:,} shards; {len(bad):,} shards differ.", highlight=False)
    if gone:
        rows = sum(finding.images for finding in gone)
        console.print(
            f"{len(gone):,} results ({rows:,} rows) are of shards that are no longer in the input; they stay."
        )
    return 1 if bad else 0


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("result", overflow="fold")
    for name in ("missing", "duplicated", "foreign", "stale"):
        table.add_column(name, justify="right")
    table.add_column("why", overflow="fold")
    for finding in findings[:_SHOWN]:
        counts = (finding.missing, finding.duplicated, finding.foreign, finding.stale)
        table.add_row(finding.output, *(f"{count:,}" for count in counts), finding.trouble or "")
    if len(findings) > _SHOWN:
        table.add_row(f"… and {len(findings) - _SHOWN:,} more")
    return table


def main(arguments: Sequence[str]) -> int:
    """Run the job; gives the exit code."""
    return run(app, arguments)
