"""`trapline JOB …`: the jobs under one name; `python -m jobs.JOB …` is the same."""

import sys
from importlib import import_module

JOBS = (
    "classify", "verify", "rescore", "events", "export-camtrapdp", "search", "duplicates", "report",
    "schema",
)  # fmt: skip


def main() -> int:
    """Run the job that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in JOBS:
        print(f"usage: trapline {{{','.join(JOBS)}}} …   (trapline JOB --help says more)", file=sys.stderr)
        return 2
    code: int = import_module(f"trapline.cli.{sys.argv[1].replace('-', '_')}").main(sys.argv[2:])
    return code


if __name__ == "__main__":
    sys.exit(main())
