"""`trapline COMMAND …`: all commands under one name."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App

from trapline import __version__
from trapline.cli import (
    classify,
    duplicates,
    events,
    export_camtrapdp,
    export_megadetector,
    report,
    rescore,
    schema,
    search,
    tables,
    verify,
)
from trapline.cli.run_job import run
from trapline.ray_session import run_command

COMMANDS = {
    "classify": classify.app,
    "verify": verify.app,
    "rescore": rescore.app,
    "tables": tables.app,
    "events": events.app,
    "export-camtrapdp": export_camtrapdp.app,
    "export-megadetector": export_megadetector.app,
    "search": search.app,
    "duplicates": duplicates.app,
    "report": report.app,
    "schema": schema.app,
}

app = App(
    name="trapline",
    help="Classify camera-trap archives: image shards in, one Parquet file per shard out.",
    help_epilogue="`trapline COMMAND --help` explains a command. Exit code 2: unknown command or option.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
for order, (name, command) in enumerate(COMMANDS.items()):
    command.sort_key = order
    app.command(command, name=name)
app.register_install_completion_command(help="Set up tab completion for bash, zsh or fish.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return the exit code."""
    return run(app, sys.argv[1:] if arguments is None else arguments)


def run_process(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that the first argument names, and end this process with its exit code."""
    run_command(lambda: main(arguments))


if __name__ == "__main__":
    run_process()
