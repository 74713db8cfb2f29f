"""`python -m jobs.rescore …` is `trapline rescore …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["rescore", *sys.argv[1:]])
