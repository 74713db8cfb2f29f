"""Write MegaDetector's JSON, for Timelapse or AddaxAI.

RESULTS is the OUTPUT of `classify` or `rescore`. FILE names each image by the path of its shard below INPUT and its own
path in it, so a tool that opens the folder INPUT finds loose photographs, and those of an archive that was unpacked
into a folder of the archive's name. Boxes are those of `classify --detections`, with the most probable classes of each;
without --detections each image has one box around all of it, and each sampled frame of a clip always has. With
--events, the species are those of an image's event, the mean over its images.
"""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from trapline.cli.run_job import command, run

app = command("export-megadetector", __doc__)


@app.default
def export(
    results_at: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify or rescore; path or URL.")],
    file: Annotated[str, Parameter(name="FILE", help="The JSON file to write; path or URL.")],
    /,
    *,
    events: Annotated[str | None, Parameter(help="OUTPUT of events; each image gets the species of its event.")] = None,
    replace: Annotated[bool, Parameter(help="Overwrite an existing file.")] = False,
) -> int:
    """Write a file of detections and classifications."""
    from trapline.analysis import dataset, megadetector_file

    account = megadetector_file.write(dataset.find(results_at), file, replace, events)
    console = Console()
    for name, count in (("images", account.images), ("boxes", account.boxes), ("failures", account.failures)):
        console.print(f"{name:10}{count:,}", highlight=False)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    return run(app, arguments)
