"""Group the images of each camera into events.

RESULTS is the OUTPUT of `classify`. OUTPUT gets deployment=NAME/events.parquet for each deployment, one row per event,
and beside it images.parquet, which names the event of each image; images without a time or a deployment are listed in
OUTPUT/quarantine.parquet. The probabilities of an event are the mean over its frames, without those that failed. Run it
again after `classify`: only deployments whose results have changed are written again. On the cluster that RAY_ADDRESS
names, if it is set, deployments are processed in parallel.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import track

from trapline.cli.run_job import command, run

app = command("events", __doc__)


@app.default
def main_events(
    results_at: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify; path or URL.")],
    output: Annotated[str, Parameter(name="OUTPUT", help="A separate folder for the events; path or URL.")],
    /,
    *,
    gap: Annotated[
        float,
        Parameter(
            help="Images of a camera at most this many seconds apart belong to one event.", validator=Number(gte=0)
        ),
    ] = 60.0,
    max_frames: Annotated[
        int | None, Parameter(help="Maximum number of images in an event; default: no limit.", validator=Number(gte=1))
    ] = None,
    deployment_from: Annotated[
        tuple[str, ...],
        Parameter(
            help="Where to find the deployment and the camera of an image: a path pattern such as "
            "`site={site}/{camera}/…`, `metadata:FIELD` of the sidecar, or `serial` (the camera's, in EXIF). Repeat it "
            "for alternatives: the first that yields something applies."
        ),
    ] = ("serial",),
    replace: Annotated[bool, Parameter(help="Overwrite events that were made with other options.")] = False,
) -> int:
    """Group images into events."""
    from trapline.analysis import dataset
    from trapline.analysis.events import build
    from trapline.analysis.events.sessions import Gap

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
    """Run the command; return the exit code."""
    return run(app, arguments)
