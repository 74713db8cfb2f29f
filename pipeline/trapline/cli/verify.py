"""Check that every image of the input is one row.

The content must be the same, too. INPUT and OUTPUT are those of `classify`. Every image is read again; --sample reads a
part.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from trapline.cli.run_job import command, run
from trapline.errors import UsageError

if TYPE_CHECKING:
    from trapline.results.verify import Finding

# A screenful.
_SHOWN = 20

app = command(
    "verify",
    __doc__,
    {0: "every image of the input is exactly one row.", 1: "something differs."},
    usage="Usage: trapline verify INPUT... OUTPUT [OPTIONS]",
)


@app.default
def verify(
    *paths: Annotated[str, Parameter(name="INPUT... OUTPUT", help="As given to classify.")],
    sample: Annotated[
        int | None, Parameter(help="Read only this many shards, drawn at random.", validator=Number(gte=1))
    ] = None,
    seed: Annotated[int, Parameter(help="Random seed for --sample.")] = 0,
) -> int:
    """Check results against their input."""
    from trapline.results.verify import reconcile

    if len(paths) < 2:
        raise UsageError("verify: give INPUT... and then OUTPUT")
    console = Console()
    *inputs, output = paths
    shards = images = clips = frames = 0
    bad: list[Finding] = []
    gone: list[Finding] = []
    for finding in reconcile(inputs, output, sample, seed):
        shards += finding.uri is not None
        if finding.uri:
            images, clips, frames = images + finding.images, clips + finding.clips, frames + finding.frames
        if not finding.good:
            bad.append(finding)
        elif finding.uri is None:
            gone.append(finding)
    if bad:
        console.print(_table(bad))
    of_clips = f", of them {clips:,} clips with {frames:,} frames," if clips else ""
    console.print(f"{images:,} images{of_clips} in {shards:,} shards; {len(bad):,} shards differ.", highlight=False)
    if gone:
        rows = sum(finding.images for finding in gone)
        console.print(
            f"{len(gone):,} results ({rows:,} rows) are of shards that are no longer in the input; they stay."
        )
    return 1 if bad else 0


def _table(findings: list["Finding"]) -> Table:
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
    """Run the command; return the exit code."""
    return run(app, arguments)
