"""Group the images of each camera into events.

RESULTS is the OUTPUT of `classify` or `rescore`. OUTPUT gets three tables, each a folder of Parquet files: `events`
with one row per event, `images` with the event of each image, and `unassigned` with the images that are in no event,
and why: they have no time, an impossible one (before 2001, as clocks show that were reset, or in the future) or
no deployment.

The probabilities of an event are the mean of those of its images, without those that failed. Run it again after
`classify`: only deployments whose results changed are written. On the cluster that RAY_ADDRESS names, if it is set,
deployments are processed in parallel.

CORRECTIONS is a CSV that corrects clocks, one row per clock and period. `deployment` names whose clock it is, and
optionally `camera` which one; `folder` limits it to images below a folder (card-2, DCIM/101RECNX), `from` and `to` to
a period, in times of that clock; `offset` (01:00:00, -00:02:30, 8766d 03:00:00) is added; or `image` names an image and
`true_time` when it was really taken.

DEPLOYMENTS is the CSV of `export-camtrapdp`: where each camera stood and when. With it an image belongs to the row that
has the name of its deployment (as deploymentID, cameraID, locationID, locationName, or location/camera) and in whose
period it was taken; several rows may name a camera that was moved. What is in no period is in no event, and OUTPUT gets
a fourth table, `deployments`.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import track

from trapline.cli.run_job import INT32, YEAR_S, command, run

app = command("events", __doc__)

# Reasons in the table `unassigned`.
_REASONS = {
    "no_time": "no time",
    "implausible_time": "an impossible time (correct the clock with --corrections)",
    "no_deployment": "no deployment",
    "deployment_not_in_table": "a place or camera that DEPLOYMENTS does not name",
    "outside_deployment": "a time outside of their deployment (correct DEPLOYMENTS, or the clock with --corrections)",
}


@app.default
def main_events(
    results_at: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify or rescore; path or URL.")],
    output: Annotated[str, Parameter(name="OUTPUT", help="A separate folder for the events; path or URL.")],
    /,
    *,
    gap: Annotated[
        float,
        Parameter(
            help="Longest time, in seconds, between two consecutive images of an event.",
            validator=Number(gte=0, lte=YEAR_S),
        ),
    ] = 60.0,
    max_frames: Annotated[
        int | None, Parameter(help="Most images in an event; default: no limit.", validator=Number(gte=1, lte=INT32))
    ] = None,
    deployment_from: Annotated[
        tuple[str, ...],
        Parameter(
            help="Where to find the deployment and the camera of an image: a path pattern such as "
            "`site={site}/{camera}/…`, `metadata:FIELD` of the sidecar, or `serial` (the camera's, in EXIF). Repeat it "
            "for alternatives: the first that an image has is used."
        ),
    ] = ("serial",),
    corrections: Annotated[
        str | None, Parameter(help="CSV with corrections of clocks, described above; path or URL.")
    ] = None,
    deployments: Annotated[
        str | None, Parameter(help="CSV with the periods of deployments, described above; path or URL.")
    ] = None,
    timezone: Annotated[
        str | None,
        Parameter(
            help="Time zone of the cameras' clocks (Europe/Berlin, +01:00), where clips or DEPLOYMENTS have times in "
            "UTC: times that say their offset are put on that clock."
        ),
    ] = None,
    replace: Annotated[bool, Parameter(help="Overwrite events that were made with other options.")] = False,
) -> int:
    """Group images into events."""
    from trapline.analysis import dataset
    from trapline.analysis.events import build
    from trapline.analysis.events.build import Options
    from trapline.analysis.events.sessions import Gap

    console = Console()

    def progress(answers: Iterable[int], total: int) -> Iterable[int]:
        return track(answers, "deployments", total, console=console, disable=not console.is_terminal, transient=True)

    found = dataset.find(results_at)
    options = Options(Gap(gap, max_frames), deployment_from, corrections, deployments, timezone)
    account = build.build(found, output, options, replace, progress)
    changes = f"{account.unchanged:,} unchanged, {account.removed:,} removed"
    console.print(f"deployments  {account.deployments:,} ({changes})", highlight=False)
    console.print(f"events       {account.events:,} of {account.images:,} images", highlight=False)
    for line in account.unused:
        console.print(
            f"note: {corrections}: line {line} corrects no image: `from` and `to` are times of the wrong clock, and of "
            "several lines the first that applies is used",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    if account.unassigned:
        console.print(f"in no event  {account.unassigned.total():,} images", highlight=False)
        for reason, count in sorted(account.unassigned.items(), key=lambda each: (-each[1], each[0])):
            console.print(f"             {count:,} {_in_words(reason)}", highlight=False, soft_wrap=True)
    return 0


def _in_words(reason: str) -> str:
    return "with " + " and ".join(_REASONS[each] for each in reason.split(", "))


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    return run(app, arguments)
