"""`python -m jobs.classify …` is `trapline classify …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["classify", *sys.argv[1:]])
