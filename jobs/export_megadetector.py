"""`python -m jobs.export_megadetector …` is `trapline export-megadetector …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["export-megadetector", *sys.argv[1:]])
