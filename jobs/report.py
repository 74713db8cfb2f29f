"""`python -m jobs.report …` is `trapline report …`, from a checkout."""

import sys

from trapline.cli.report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
