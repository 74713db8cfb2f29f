"""`python -m jobs.tables …` is `trapline tables …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["tables", *sys.argv[1:]])
