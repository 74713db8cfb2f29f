"""`python -m jobs.events …` is `trapline events …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["events", *sys.argv[1:]])
