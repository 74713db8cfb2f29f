"""`python -m jobs.docs` writes the pages of docs/ that are generated from the code: cli.md and schema.md."""

import re
from pathlib import Path

from trapline.analysis import schema_page
from trapline.cli.app import COMMANDS

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_TOP = """# The command line

`python -m jobs.docs` generates this page from the help of the commands. `trapline --install-completion` sets up tab
completion for bash, zsh or fish. From a checkout, `python -m jobs.COMMAND …` is the same as `trapline COMMAND …`.
"""


def pages() -> dict[Path, str]:
    """Return the text of each generated page."""
    return {_DOCS / "cli.md": cli_page(), _DOCS / "schema.md": schema_page.page()}


def cli_page() -> str:
    """Return the page that lists all commands with their options and exit codes, in Markdown."""
    summaries = [
        f"| [`{name}`](#trapline-{name}) | {str(command.help).partition(chr(10))[0]} |"
        for name, command in COMMANDS.items()
    ]
    parts = [_TOP, "\n".join(["| command | |", "|---|---|", *summaries])]
    for name, command in COMMANDS.items():
        text = command.generate_docs(heading_level=2, recursive=False)
        # cyclopts has the name twice in a usage line
        text = re.sub(rf"^trapline {name} {name}\b", f"trapline {name}", text, flags=re.MULTILINE)
        parts += [text, str(command.help_epilogue)]
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(parts)).replace("```console", "```text") + "\n"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
