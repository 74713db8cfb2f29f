"""`python -m jobs.duplicates …` is `trapline duplicates …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["duplicates", *sys.argv[1:]])
