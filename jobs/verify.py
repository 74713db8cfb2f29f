"""`python -m jobs.verify …` is `trapline verify …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["verify", *sys.argv[1:]])
