"""What all commands share: the look of their help, their exit codes, and errors reported in one line."""

import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter
from pydantic import ValidationError

from trapline.display_text import display_text
from trapline.errors import TraplineError, redacted

# What options take at most: times up to a year, and numbers that are written as int32.
YEAR_S = 31_536_000
INT32 = 2**31 - 1
EXIT_FATAL = 2
EXIT_INTERRUPTED = 130
_EXIT_CODES = {
    0: "complete.",
    EXIT_FATAL: "the command line, an input file or a store is at fault; the message says what to do.",
    EXIT_INTERRUPTED: "interrupted.",
}


def command(name: str, description: str | None, exit_codes: Mapping[int, str] | None = None, **settings: Any) -> App:
    """Return the application of one command.

    Args:
        name: of the command.
        description: its help page: a line that says what it does, and paragraphs that explain it.
        exit_codes: meanings of exit codes that other commands do not have, or that differ for this one.
        settings: further arguments of cyclopts' App.
    """
    codes = dict(sorted({**_EXIT_CODES, **(exit_codes or {})}.items()))
    return App(
        name=f"trapline {name}",
        help=description,
        help_epilogue="\n".join(["Exit codes:", "", *(f"- {code}: {meaning}" for code, meaning in codes.items())]),
        default_parameter=Parameter(negative=(), show_default=_shown_default),
        suppress_keyboard_interrupt=False,  # `run` reports it
        version_flags=(),
        **settings,
    )


def run(app: App, arguments: Sequence[str]) -> int:
    """Run a command line, report errors in one line on stderr, and return the exit code."""
    # `ray job stop` and schedulers send SIGTERM: stop as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0
    except KeyboardInterrupt:
        print("Interrupted. What is committed stays; run the same command again to carry on.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "trapline":
            raise
        _report(f"the Python package {error.name} is not installed; run: pip install 'trapline[analysis]'")
    except (TraplineError, CycloptsError, ValidationError) as error:
        _report(_in_one_line(error))
    return EXIT_FATAL


def _report(message: str) -> None:
    print(f"trapline: {display_text(redacted(message))}", file=sys.stderr)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, MissingArgumentError) and error.argument and error.app and not error.keyword:
        return f"{error.argument.name} is missing; see {error.app.name[0]} --help"
    problem = error if isinstance(error, ValidationError) else error.__cause__
    if isinstance(problem, ValidationError):
        first = problem.errors()[0]
        option = "-".join(map(str, first["loc"])).replace("_", "-")
        return f"--{option} {first['input']}: {first['msg']}"
    return " ".join(str(error).split())


def _shown_default(value: Any) -> str | None:
    """Return a default as a user would type it; None for options that do nothing unless given."""
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    return None if value is None or value is False or value == "" else str(value)
