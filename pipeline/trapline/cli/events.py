"""Join the images of a camera that follow each other into events, with what they show as a whole.

RESULTS is the OUTPUT of `classify`. For each deployment OUTPUT gets deployment=NAME/events.parquet, one row per event,
and beside it images.parquet, which says of each image in which event it is; images without time or deployment are
listed in OUTPUT/quarantine.parquet. The probabilities of an event are the mean of those of its frames, failed ones left
out. Run it again after `classify`: only deployments whose results changed are written. They are shared among the
workers of the cluster that RAY_ADDRESS names, where it names one.

Exit codes: 0 all well; 2 the invocation or a store is at fault; 130 interrupted.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import track

from trapline.analysis import dataset
from trapline.analysis.events import build
from trapline.analysis.events.sessions import Gap
from trapline.cli.run_job import run

app = App(name="trapline events", help=__doc__, version_flags=(), result_action="return_value")


@app.default
def main_events(
    results_at: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify; any URL.")],
    output: Annotated[str, Parameter(name="OUTPUT", help="A folder of its own for the events.")],
    /,
    *,
    gap: Annotated[
        float,
        Parameter(
            help="Seconds between two images of a camera up to which they are one event.", validator=Number(gte=0)
        ),
    ] = 60.0,
    max_frames: Annotated[
        int | None, Parameter(help="Most images in an event; default: no limit.", validator=Number(gte=1))
    ] = None,
    deployment_from: Annotated[
        tuple[str, ...],
        Parameter(
            help="Where the deployment and the camera stand: a pattern of the path such as site={site}/{camera}/…, "
            "metadata:FIELD of the sidecar, or serial (of the camera, in EXIF). Give several, and the first that says "
            "something of an image holds."
        ),
    ] = ("serial",),
    replace: Annotated[
        bool, Parameter(help="Overwrite events that were made with other options.", negative=())
    ] = False,
) -> int:
    """Join images into events."""
    console = Console()

    def progress(answers: Iterable[int], total: int) -> Iterable[int]:
        return track(answers, "deployments", total, console=console, disable=not console.is_terminal, transient=True)

    found = dataset.find(results_at)
    account = build.build(found, output, Gap(gap, max_frames), deployment_from, replace, progress)
    changes = f"{account.unchanged:,} unchanged, {account.removed:,} removed"
    console.print(f"deployments  {account.deployments:,} ({changes})", highlight=False)
    console.print(f"events       {account.events:,} of {account.images:,} images", highlight=False)
    if account.quarantined:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in account.quarantined.most_common())
        console.print(f"in no event  {account.quarantined.total():,} images: {reasons}", highlight=False)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the job; gives the exit code."""
    return run(app, arguments)
