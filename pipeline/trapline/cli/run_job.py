"""How every job runs: signals, exit codes, and errors told in one line."""

import signal
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from pydantic import ValidationError

from trapline.errors import TraplineError

EXIT_FATAL = 2
EXIT_INTERRUPTED = 130


def run(app: App, arguments: Sequence[str]) -> int:
    """Run a job's command line; gives the exit code, and says every error that a person can mend in one line."""
    # `ray job stop` and schedulers send SIGTERM: stop as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app.suppress_keyboard_interrupt = False  # or the library would end us, and without a word
        return app(arguments, exit_on_error=False, print_error=False) or 0  # --help gives None
    except KeyboardInterrupt:
        print("Interrupted. What is committed stays; run the same command again to carry on.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (TraplineError, CycloptsError, ValidationError) as error:
        print(f"trapline: {_in_one_line(error)}", file=sys.stderr)
        return EXIT_FATAL


def _in_one_line(error: Exception) -> str:
    problem = error if isinstance(error, ValidationError) else error.__cause__
    if isinstance(problem, ValidationError):
        first = problem.errors()[0]
        option = "-".join(map(str, first["loc"])).replace("_", "-")
        return f"--{option} {first['input']}: {first['msg']}"
    return " ".join(str(error).split())
