"""Classify an archive: one Parquet file per shard.

The files mirror the input below OUTPUT. INPUT is an archive (.tar, .zip, .parquet), a folder, a pattern, or @FILE with
one of these a line; INPUT and OUTPUT are paths or URLs such as s3://bucket/folder. Shards that OUTPUT already has
results for are skipped, so the same command carries on after an interruption and classifies only what is new on the
next night.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Yaml
from yaml import YAMLError

from trapline.bytecode import bytecode_warning
from trapline.cli.run_job import command, run
from trapline.config import INPUT, Options, RunConfig
from trapline.errors import UsageError, in_one_line
from trapline.quick_imports import quick_imports
from trapline.ray_session import start_in_background

if TYPE_CHECKING:
    from trapline.run.ray_stream import WorkerClasses

EXIT_CODES = {"planned": 0, "complete": 0, "stopped": 0, "incomplete": 3, "over_budget": 4}


def _read_config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Read options that are not on the command line from the file that --config names."""
    (given,) = (argument for argument in arguments if "--config" in argument.names)
    if given.tokens:
        path = Path(given.tokens[-1].value)
        if not path.is_file():
            raise UsageError(f"{path}: no such config file")
        try:
            path.read_text("utf-8")
            Yaml(path, use_commands_as_keys=False)(app, commands, arguments)
        except (OSError, UnicodeError) as error:
            raise UsageError(
                f"{path}: cannot be read as UTF-8 text ({in_one_line(error)}); correct the file"
            ) from error
        except CycloptsError as error:
            if isinstance(error.__cause__, YAMLError):
                reason = in_one_line(error.__cause__)
                raise UsageError(f"{path}: is not YAML ({reason}); correct the file") from error
            raise


app = command(
    "classify",
    __doc__,
    {
        0: "complete, or --stop-at left shards for the next run.",
        2: "the command line, the model or a store is at fault; the message says what to do.",
        3: "some shards failed, and the next run tries them again; or broke off, and were committed as far as they go.",
        4: "more images failed than --max-failed-fraction allows.",
        130: "interrupted. Whatever the exit code, finished shards stay, and the same command carries on from there.",
    },
    usage="Usage: trapline classify INPUT... OUTPUT --model MODEL [OPTIONS]",
    config=_read_config_file,
)


@app.default
def classify(
    *paths: Annotated[str, Parameter(name="INPUT... OUTPUT", help="What to read, then where to write.")],
    inputs: Annotated[tuple[str, ...], Parameter(show=False)] = (),
    output: Annotated[str, Parameter(show=False)] = "",
    config: Annotated[
        Path | None,
        INPUT,
        Parameter(
            help="YAML file with any of these options, and with inputs and output; the command line takes precedence."
        ),
    ] = None,
    options: Annotated[Options, Parameter(name="*")],
) -> int:
    """Classify an archive."""
    if len(paths) == 1:
        raise UsageError(f"classify {paths[0]}: names one place only; give INPUT... and then OUTPUT")
    if paths:
        *inputs_given, output = paths
        inputs = tuple(inputs_given)
    if not inputs or not output:
        raise UsageError("classify: nothing to read or nowhere to write; give INPUT... and then OUTPUT")
    return run_config(RunConfig(inputs=inputs, output=output, **options.model_dump()))


def run_config(config: RunConfig, workers: "WorkerClasses | None" = None) -> int:
    """Classify, show progress and a summary, and return the exit code; `workers` are those of `run.classify`."""
    # Before the imports, which load torch and take as long as Ray's start.
    if not config.dry_run:
        start_in_background()
    with quick_imports():
        from rich.console import Console

        from trapline.monitoring.console import ConsoleObserver, print_plan, print_summary
        from trapline.monitoring.json_log import JsonLog
        from trapline.monitoring.monitored_run import classify_monitored
        from trapline.run.manifest import latest

    console = Console()
    warning = None if config.dry_run else bytecode_warning()
    if config.log == "json":
        log = JsonLog(console)
        if warning:
            log.note(warning)
        manifest = classify_monitored(config, log, workers)
        log.end(manifest)
        return EXIT_CODES[manifest.status]
    with ConsoleObserver(console) as observer:
        if warning:
            observer.note(warning)
        manifest = classify_monitored(config, observer, workers)
    if config.dry_run:
        print_plan(console, manifest, latest(config.output))
    else:
        print_summary(console, manifest, config.output)
    return EXIT_CODES[manifest.status]


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    return run(app, arguments)
