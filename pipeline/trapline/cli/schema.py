"""Print the columns of a result file, in Markdown.

The page also documents the keys of its footer, and is docs/schema.md.
"""

from collections.abc import Sequence

from trapline.cli.run_job import command, run

app = command("schema", __doc__)


@app.default
def schema() -> int:
    """Print the schema of a result file."""
    from trapline.analysis.schema_page import page

    print(page(), end="")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    return run(app, arguments)
