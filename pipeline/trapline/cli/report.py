"""A page about an archive: who lives where and when, what is doubtful or failed, and which cameras to look after.

RESULTS is the OUTPUT of `classify` or of `rescore`. REPORT.html needs nothing else: pictures and charts are in it, and
it asks no server for anything. A few pictures are fetched again from the archive's shards; where these are gone, the
page says so.

Exit codes: 0 all well; 2 the invocation or a store is at fault; 130 interrupted.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.text import Text

from trapline.analysis import dataset
from trapline.analysis.report import page
from trapline.analysis.report.page import Options
from trapline.cli.run_job import run
from trapline.storage import store

app = App(name="trapline report", help=__doc__, version_flags=(), result_action="return_value")


@app.default
def report(
    results_at: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify; any URL.")],
    output: Annotated[str, Parameter(name="REPORT.html", help="The page to write; any URL.")],
    /,
    *,
    deployment_from: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(),
            help="Where site and camera stand, as for `trapline events`: a pattern of the path such as "
            "site={site}/{camera}/…, metadata:FIELD or serial; several may be given. Default: the folders below the "
            "archive.",
        ),
    ] = (),
    pictures: Annotated[
        int,
        Parameter(
            help="Most pictures to fetch from the shards, to show them or to see whether a camera has gone dark; "
            "0: none.",
            validator=Number(gte=0),
        ),
    ] = Options.pictures,
    probability: Annotated[
        float,
        Parameter(help="How sure the model must be of a species for it to count.", validator=Number(gte=0, lte=1)),
    ] = Options.sure,
    silent_after: Annotated[
        int, Parameter(help="Days without an image after which a camera is silent.", validator=Number(gte=1))
    ] = Options.silent_after,
    new_within: Annotated[
        int, Parameter(help="Days at the archive's end in which a species is new.", validator=Number(gte=1))
    ] = Options.new_within,
) -> int:
    """Write a page about results."""
    console = Console()
    options = Options(deployment_from, pictures, probability, silent_after, new_within)
    with console.status("reading the results") as status:
        built = page.build(dataset.find(results_at), options, status.update)
        data = built.html.encode("utf-8", "replace")
        store.put(store.absolute(output), data)
    head = built.headline
    console.print(f"images    {head.images:,} of {head.cameras:,} cameras at {head.sites:,} sites", highlight=False)
    missing = f", {built.missing:,} not to be had" if built.missing else ""
    console.print(f"pictures  {built.shown:,} fetched{missing}", highlight=False)
    if found := Counter(finding.rule for finding in built.findings):
        told = ", ".join(f"{count:,} {rule}" for rule, count in found.most_common())
        console.print(f"cameras   {told}", highlight=False)
    # Names from outside: rich would take brackets in a plain string for its markup.
    console.print(Text(f"report    {output} ({len(data) / 1e6:.1f} MB)"), soft_wrap=True)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the job; gives the exit code."""
    return run(app, arguments)
