"""`python -m jobs.export_camtrapdp …` is `trapline export-camtrapdp …`, from a checkout."""

import sys

from trapline.cli.app import run_process

if __name__ == "__main__":
    run_process(["export-camtrapdp", *sys.argv[1:]])
