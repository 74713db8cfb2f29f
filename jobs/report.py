"""`python -m jobs.report …` is `trapline report …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
