"""Write a Camtrap DP package, for GBIF, Agouti or R.

The package follows version 1.0.2 of the standard, and is held to all its rules before anything is written. RESULTS is
the OUTPUT of `classify` or `rescore`, EVENTS that of `events`, DEPLOYMENTS a CSV with the standard's own columns
(deploymentID, latitude, longitude, deploymentStart, deploymentEnd, …) whose deploymentID are the deployments of EVENTS.
Where a camera was moved, several rows may name it, or its place, in cameraID, locationID or locationName instead; an
event then belongs to the row in whose period it lies. METADATA is a YAML or JSON file with what the data does not
contain: contributors, and the project's title, samplingDesign, captureMethod and individualAnimals; other properties
of the standard's datapackage.json are kept.

Images without a time or a deployment, of a deployment that is not in the table, or more than a day outside its period,
go to PACKAGE/quarantine.csv.gz with the reason.
"""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from trapline.cli.run_job import command, run
from trapline.errors import UsageError

app = command("export-camtrapdp", __doc__)


@app.default
def export(
    results_at: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify; path or URL.")],
    events: Annotated[str, Parameter(name="EVENTS", help="OUTPUT of events.")],
    deployments: Annotated[str, Parameter(name="DEPLOYMENTS", help="CSV file with the deployments.")],
    package: Annotated[str, Parameter(name="PACKAGE", help="A separate folder for the package; path or URL.")],
    /,
    *,
    metadata: Annotated[str, Parameter(help="YAML or JSON file with what the data does not contain.")],
    title: Annotated[str | None, Parameter(help="Title of the package; default: the title in METADATA.")] = None,
    timezone: Annotated[
        str | None,
        Parameter(
            help="Time zone of the cameras' clocks: a name (Europe/Berlin) or, for clocks without summer time, an "
            "offset (+01:00). A column timezone in DEPLOYMENTS takes precedence; one of the two is required."
        ),
    ] = None,
    threshold: Annotated[
        float, Parameter(help="Below this probability, an observation is unknown.", validator=Number(gte=0, lte=1))
    ] = 0.5,
    taxa: Annotated[
        str | None,
        Parameter(
            help="CSV that gives each class its scientificName and optionally observationType, taxonID, taxonRank; "
            "default: the class names are scientific names."
        ),
    ] = None,
    media_url: Annotated[
        str | None,
        Parameter(
            help="URL under which the images are published, by the path of their shard below INPUT and their path in "
            "it; default: filePath is where they were read."
        ),
    ] = None,
    model_name: Annotated[
        str | None, Parameter(help="Name of the model in classifiedBy, before the hash of its weights.")
    ] = None,
    parquet: Annotated[bool, Parameter(help="Also write the tables as Parquet.")] = False,
    replace: Annotated[bool, Parameter(help="Overwrite an existing package.")] = False,
) -> int:
    """Write a Camtrap DP package."""
    from trapline.analysis import dataset
    from trapline.analysis.camtrapdp import descriptor
    from trapline.analysis.camtrapdp import export as package_export
    from trapline.analysis.camtrapdp.export import Export

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
    """Run the command; return the exit code."""
    return run(app, arguments)
