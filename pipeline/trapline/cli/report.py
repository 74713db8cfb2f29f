"""Write an HTML page about an archive.

It shows which species live where and when, what is doubtful, and which cameras need attention. RESULTS is the OUTPUT of
`classify` or of `rescore`. REPORT.html is self-contained: images and charts are in it, and it sends no request to any
server. A few images and clips are read again from the archive's shards; where these are gone, the page says so.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.text import Text

from trapline.cli.run_job import INT32, YEAR_S, command, run

app = command("report", __doc__)


@app.default
def report(
    results_at: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify or rescore; path or URL.")],
    output: Annotated[str, Parameter(name="REPORT.html", help="The page to write; path or URL.")],
    /,
    *,
    deployment_from: Annotated[
        tuple[str, ...],
        Parameter(
            help="Where to find the site and the camera of an image, as for `trapline events`: a path pattern such as "
            "`site={site}/{camera}/…`, `metadata:FIELD` or `serial`; repeat it for alternatives. Default: where the "
            "events found it, or else the folders below the archive.",
        ),
    ] = (),
    events: Annotated[
        str | None,
        Parameter(
            help="OUTPUT of `trapline events` on RESULTS; path or URL. The page then counts independent events, and "
            "has rates, detection histories and a map."
        ),
    ] = None,
    independent_after: Annotated[
        float,
        Parameter(
            help="Minutes that must lie between two independent events of one species at one camera.",
            validator=Number(gte=0, lte=YEAR_S // 60),
        ),
    ] = 30,
    pictures: Annotated[
        int,
        Parameter(
            help="Maximum number of images to read from the shards, to show them and to find cameras that have gone "
            "dark; 0: none.",
            validator=Number(gte=0, lte=INT32),
        ),
    ] = 150,
    probability: Annotated[
        float, Parameter(help="Count a species only from this probability.", validator=Number(gte=0, lte=1))
    ] = 0.5,
    silent_after: Annotated[
        int,
        Parameter(
            help="Report a camera as silent after this many days without images.", validator=Number(gte=1, lte=INT32)
        ),
    ] = 3,
    new_within: Annotated[
        int,
        Parameter(
            help="Report a species as new in the last this many days of the archive.",
            validator=Number(gte=1, lte=INT32),
        ),
    ] = 7,
) -> int:
    """Write a page about results."""
    from trapline.analysis import dataset
    from trapline.analysis.report import page
    from trapline.analysis.report.page import Options
    from trapline.storage import store

    console = Console()
    options = Options(deployment_from, pictures, probability, silent_after, new_within, events, independent_after)
    with console.status("reading the results") as status:
        built = page.build(dataset.find(results_at), options, status.update)
        data = built.html.encode("utf-8", "replace")
        store.put(store.absolute(output), data)
    head = built.headline
    console.print(f"images    {head.images:,} of {head.cameras:,} cameras at {head.sites:,} sites", highlight=False)
    if built.survey:
        survey = built.survey
        counted = f"{survey.independent:,} independent of {survey.events:,}, in {survey.days:,.0f} camera-days"
        console.print(f"events    {counted}", highlight=False)
    missing = f", {built.missing:,} could not be read" if built.missing else ""
    console.print(f"pictures  {built.shown:,} fetched{missing}", highlight=False)
    if found := Counter(finding.rule for finding in built.findings):
        told = ", ".join(f"{count:,} {rule}" for rule, count in found.most_common())
        console.print(f"cameras   {told}", highlight=False)
    # Names come from outside: rich would take brackets in a plain string for its markup.
    console.print(Text(f"report    {output} ({len(data) / 1e6:.1f} MB)"), soft_wrap=True)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    return run(app, arguments)
