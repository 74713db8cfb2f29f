"""Compare Trapline with what one could use instead, on the same weights and images, in turn.

Figures are medians over the rounds, and ratios are taken within a round, because a machine's speed drifts.
"""

from collections.abc import Sequence

from cyclopts import App

from jobs.benchmark.commands import decoders, networks, runs, stores
from trapline.cli.run_job import run as run_app

app = App(name="trapline benchmark", help=__doc__, version_flags=(), result_action="return_value")
for command in (
    networks.model,
    networks.checked,
    networks.gpu,
    decoders.decode,
    decoders.clips,
    runs.pipeline,
    runs.growth,
    stores.planning,
    stores.tables,
):
    app.command(command)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmarks; return the exit code."""
    return run_app(app, arguments)
