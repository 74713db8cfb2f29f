"""`python -m jobs.report …` is `trapline report …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["report", *sys.argv[1:]])
