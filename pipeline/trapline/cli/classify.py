"""Classify an archive of image shards: one Parquet file per shard, mirrored below OUTPUT.

Exit codes: 0 all well, also where --stop-at left shards for another night; 2 the invocation, the model or a store is at
fault; 3 some shards failed, and the next run tries them again; 4 more images failed than --max-failed-fraction allows;
130 interrupted. What was committed stays in every case, and the same command carries on from there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.config import Yaml
from rich.console import Console

from trapline.cli.run_job import run
from trapline.config import Options, RunConfig
from trapline.errors import UsageError
from trapline.monitoring.console import Watch, print_plan, print_summary
from trapline.monitoring.json_log import Log
from trapline.run import classify as run_classify
from trapline.run.manifest import latest

EXIT_CODES = {"planned": 0, "complete": 0, "stopped": 0, "incomplete": 3, "over_budget": 4}

app = App(
    name="trapline classify",
    help=__doc__,
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,  # what is to be said then is said by `run`
    version_flags=(),
    result_action="return_value",
)


@app.default
def classify(
    *paths: Annotated[str, Parameter(help="INPUT... OUTPUT: archives, folders, patterns or @FILE lists; any URL.")],
    inputs: Annotated[tuple[str, ...], Parameter(help="In a config file, in place of the INPUT arguments.")] = (),
    output: Annotated[str, Parameter(help="In a config file, in place of the OUTPUT argument.")] = "",
    options: Annotated[Options, Parameter(name="*")],
) -> int:
    """Classify an archive of image shards."""
    if len(paths) == 1:
        raise UsageError(f"classify {paths[0]}: names one place only; give INPUT... and then OUTPUT")
    if paths:
        *inputs_given, output = paths
        inputs = tuple(inputs_given)
    if not inputs or not output:
        raise UsageError("classify: nothing to read or nowhere to write; give INPUT... and then OUTPUT")
    config = RunConfig(inputs=inputs, output=output, **options.model_dump())
    console = Console()
    if config.log == "json":
        log = Log(console)
        manifest = run_classify.classify(config, log)
        log.end(manifest)
        return EXIT_CODES[manifest.status]
    with Watch(console) as watch:
        manifest = run_classify.classify(config, watch)
    if config.dry_run:
        print_plan(console, manifest, latest(config.output))
    else:
        print_summary(console, manifest, config.output)
    return EXIT_CODES[manifest.status]


@app.meta.default
def configured(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(help="YAML file of these options; the command line wins.")] = None,
) -> int:
    """Take options from a file too."""
    if config and not config.is_file():
        raise UsageError(f"{config}: no such config file")
    app.config = [Yaml(config)] if config else []
    code: int = app(tokens, exit_on_error=False, print_error=False)
    return code


def main(arguments: Sequence[str]) -> int:
    """Run the job; gives the exit code."""
    return run(app.meta, arguments)
