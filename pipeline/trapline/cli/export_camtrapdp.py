"""Write predictions and events as a Camtrap DP 1.0.2 package, for GBIF, Agouti, R and all that reads the standard.

RESULTS is the OUTPUT of `classify` or `rescore`, EVENTS that of `events`, DEPLOYMENTS a CSV of the standard's columns
(deploymentID, latitude, longitude, deploymentStart, deploymentEnd, …) whose deploymentID are the deployments of EVENTS.
Where a camera was moved, several rows may name it, or its place, in cameraID, locationID or locationName instead; an
event then belongs to the row in whose period it lies. METADATA is a YAML or JSON file that says what the data cannot:
contributors, and of the project title, samplingDesign, captureMethod and individualAnimals; other properties of the
standard's datapackage.json are kept. Everything is held to the rules of the standard before anything is written.

Images without time or deployment, of a deployment that is not in the table, or more than a day outside of its period
go to PACKAGE/quarantine.csv.gz with the reason.

Exit codes: 0 all well; 2 the invocation, a table or a store is at fault; 130 interrupted.
"""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console

from trapline.analysis import dataset
from trapline.analysis.camtrapdp import descriptor
from trapline.analysis.camtrapdp import export as package_export
from trapline.analysis.camtrapdp.export import Export
from trapline.cli.run_job import run
from trapline.errors import UsageError

app = App(name="trapline export-camtrapdp", help=__doc__, version_flags=(), result_action="return_value")


@app.default
def export(
    results_at: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify; any URL.")],
    events: Annotated[str, Parameter(name="EVENTS", help="OUTPUT of events.")],
    deployments: Annotated[str, Parameter(name="DEPLOYMENTS", help="The table of deployments.")],
    package: Annotated[str, Parameter(name="PACKAGE", help="A folder for the package alone.")],
    /,
    *,
    metadata: Annotated[str, Parameter(help="YAML or JSON file of what the data cannot tell.")],
    title: Annotated[str | None, Parameter(help="Of the package; default: the metadata's title.")] = None,
    timezone: Annotated[
        str | None,
        Parameter(
            help="Of the cameras' clocks: a name (Europe/Berlin) or, for clocks that never change, an offset (+01:00). "
            "A column timezone of the deployments table comes first. One of the two is needed."
        ),
    ] = None,
    threshold: Annotated[
        float, Parameter(help="Probability below which an observation is unknown.", validator=Number(gte=0, lte=1))
    ] = 0.5,
    taxa: Annotated[
        str | None,
        Parameter(
            help="CSV that gives each class its scientificName and perhaps observationType, taxonID, taxonRank; "
            "without it the classes are taken for scientific names."
        ),
    ] = None,
    media_url: Annotated[
        str | None,
        Parameter(
            help="URL below which the images are published, by the path of their shard below INPUT and their own in "
            "it; without it filePath says where they were read."
        ),
    ] = None,
    model_name: Annotated[str | None, Parameter(help="In classifiedBy, before the hash of the weights.")] = None,
    parquet: Annotated[bool, Parameter(help="Also write the tables as Parquet.", negative=())] = False,
    replace: Annotated[bool, Parameter(help="Overwrite a package that is there.", negative=())] = False,
) -> int:
    """Write a Camtrap DP package."""
    description = descriptor.read(metadata)
    named = title or description.title
    if not named:
        raise UsageError(f"{metadata}: has no title; give --title")
    how = Export(timezone, threshold, model_name, taxa, media_url, parquet)
    found = dataset.find(results_at)
    account = package_export.export(found, events, deployments, package, description, named, how, replace)
    console = Console()
    for table, rows in account.rows.items():
        console.print(f"{table:14}{rows:,}", highlight=False)
    if account.quarantined:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in account.quarantined.items())
        console.print(f"{'quarantine':14}{sum(account.quarantined.values()):,}: {reasons}", highlight=False)
    for warning in account.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the job; return the exit code."""
    return run(app, arguments)
