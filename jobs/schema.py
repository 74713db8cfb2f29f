"""`python -m jobs.schema …` is `trapline schema …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["schema", *sys.argv[1:]])
