"""`python -m jobs.search …` is `trapline search …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["search", *sys.argv[1:]])
