"""Print the page that documents the columns of a result and the keys of its footer, in Markdown."""

from collections.abc import Sequence

from cyclopts import App

from trapline.analysis.schema_page import page
from trapline.cli.run_job import run

app = App(name="trapline schema", help=__doc__, version_flags=(), result_action="return_value")


@app.default
def schema() -> int:
    """Print the schema of a result."""
    print(page(), end="")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the job; gives the exit code."""
    return run(app, arguments)
